from .launch import train as train
from .loop import TrainingFailed as TrainingFailed
from .mirror import mirror_run as mirror_run
from .model_file import load_model as load_model, load_model_file as load_model_file
from .runs import Run as Run, list_runs as list_runs, open_run as open_run, run_id as run_id
from .stop import Interrupted as Interrupted
