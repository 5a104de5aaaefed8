# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .labels import (
    SCHEMAS as SCHEMAS,
    LabelSchema as LabelSchema,
    canonical as canonical,
    counterparts as counterparts,
    schema_named as schema_named,
    translate as translate,
)
from .list_form import ListForm as ListForm
from .readers import READERS as READERS, read_dataset as read_dataset, read_dfew as read_dfew
from .still_readers import read_affectnet as read_affectnet
from .protocols import EXPECTED as EXPECTED, PROTOCOLS as PROTOCOLS, Protocol as Protocol, compare as compare
from .samples import Sample as Sample, split_validation as split_validation, translate_samples as translate_samples
from .face_dataset import FaceDataset as FaceDataset
from .packed import read_packed as read_packed, verify as verify
from .own_data import DRAWN as DRAWN, data_settings as data_settings, pretraining_settings as pretraining_settings
