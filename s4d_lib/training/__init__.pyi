# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .configs import (
    Config as Config,
    FinetuneConfig as FinetuneConfig,
    Modality as Modality,
    PretrainConfig as PretrainConfig,
    geometry as geometry,
)
from .data import read_samples as read_samples, training_split as training_split, views as views
from .content import data_use as data_use
from .plans import Mixed as Mixed, collate as collate, epoch_plan as epoch_plan, shuffled as shuffled
from .jobs import finetune_plan as finetune_plan, pretrain_job as pretrain_job
from .steps import pieces as pieces
from .loop import Job as Job, Loop as Loop, run_job as run_job
from .state import Progressed as Progressed, read_losses as read_losses
from .fitting import build_classifier as build_classifier
from .runs import Run as Run, train as train
from .launch import Launch as Launch
from .tiers import (
    LABELLED as LABELLED,
    PRETRAIN as PRETRAIN,
    finetuning as finetuning,
    prepare_data as prepare_data,
    pretraining as pretraining,
    train_s2d as train_s2d,
)
from .costs import Cost as Cost
from .cost_tables import as_lines as as_lines, cost_table as cost_table
from .step_counts import count_step as count_step
