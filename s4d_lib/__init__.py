"""recipe → record     The library of the book Static for Dynamic, wing by wing from the roof to the ground.

    cli/              words → calls                       the `s4d` command
    lab/              plan → record                       the transfer laboratory and the book's studies
    bench/            rows → ratios                       how fast this is beside others, on one machine
    training/         config → run                        one process or many, the same run
    analysis/         model → reasons                     gradients, routes, use of time, floors
    predict/          video → timeline                    any video to apparent expressions over time
    batch/            chapters → runs                     the book without anybody watching
    figures/          record → figure                     every drawing of the book
    checkpoints/      published file → model              and back, every key accounted for
    models/           layers → model                      autoencoder, classifier, S2D, in named sizes
    synthetic_faces/  recipe → frames, folder             faces of nobody, with exact ground truth
    datasets/         folder → samples                    lists, labels, protocols, doctor, pack
    crops/            frames → faces                      found, followed, turned upright, cut out
    weights/          file ↔ tensors                      any weight file, and nothing in it is run
    frames/           file → frames                       videos, folders, pictures, shards, by number
    layers/           clip → tokens → latents → loss      what the models are made of
    metrics/          answers → numbers                   scores, intervals, verdicts

The files beside the wings are the ground on which all of them stand; `registry.py` alone, which names the models for
timm, looks up to them. Importing this costs nothing.
"""

from s4d_lib.timm_import import register_with_timm

__version__ = "0.1.0"

register_with_timm()
