"""folder → samples     lists, labels, protocols and readers; what a training is fed.

    list_form        how lists are written, said once and in the same words everywhere.
    labels           the class order of every data set the book reads, and explicit maps between them.
    lists            text and CSV lists as rows, and a data folder that nothing read may leave.
    arrays           .npy arrays and Parquet tables as rows.
    rows             what all readers share: labels, names, groups and files of a list, checked row by row.
    tables           which row of a list with columns is of which split and fold.
    still_rows       lists of the image data sets: votes, AffectNet's tables and arrays.
    groups           who is shown, of a file of one's own beside the lists.
    named_files      data sets without lists, whose file names say class and person: CREMA-D, RAVDESS.
    folders          where the published data sets keep their lists and clips, in every known spelling.
    readers          one reader for every data set that the papers use, and for tables and class folders of your own.
    still_readers    readers of the image data sets: AffectNet, RAF-DB, FERPlus. `readers.py` has the formats.
    own_validation   whether the lists of a data set hold a validation split of their own.
    protocols        how a published number was made, as data: frames, sampling, folds, views, rules.
    samples          what a sample is, checks before training, and splits.
    face_dataset     the data set that a training is fed from, and which of its files cannot be read.
    packed           what `datasets/pack/writer.py` wrote, read back: samples for FaceDataset, checksums on demand.
    own_data         what a chapter reads when it is pointed at data of your own.
    doctor/          folder → diagnosis: what a data folder holds, which protocol it is and what is wrong with it.
    pack/            folder → shards: clips in WebDataset shards or small videos, with checksums, resumable.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
