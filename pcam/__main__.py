"""`python -m pcam VERB`: the same as the `pcam` command (torchrun needs a module)."""

from pcam.cli import main

if __name__ == "__main__":
    main()
