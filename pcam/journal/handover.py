"""What Q9 shows: can somebody else read, run and judge the work from what is handed over?

The README's sections and commands, the bundle used where there is no network, and the submission checklist are
all computed from the files themselves.
"""

from __future__ import annotations

from pcam.errors import JournalError
from pcam.journal.plan import Plan
from pcam.storage import read_json
from pcam.training.runs import Run


def best_run(plan: Plan) -> Run:
    """Return the completed planned run with the best ROC-AUC on valid (the first of equals, in the plan's order).

    Only the planned runs of this configuration, data and code count; what else lies in the folder does not.

    Raises:
        JournalError: no planned run is completed.
    """
    completed = []
    for name in plan.runs:
        pointer = plan.work / "plan" / f"{name}.json"
        if pointer.exists():
            run = Run(plan.work / "runs" / str(read_json(pointer, "plan entry")["run"]))
            if run.state == "completed" and run.final.get("valid_auc") is not None:
                completed.append(run)
    if not completed:
        raise JournalError(f"{plan.work / 'plan'}: no completed run; run 'make journal' first")
    return max(completed, key=lambda run: float(run.final["valid_auc"]))
