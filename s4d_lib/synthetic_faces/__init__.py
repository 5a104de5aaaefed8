"""recipe → frames, folder     faces of nobody, drawn with exact ground truth, in memory or in data sets' layouts.

    recipes           how faces are drawn: class shares, cameras, label noise, how clips unfold.
    motion            EMFACS-like prototypes with natural variety, and how they unfold in time.
    people            who is drawn (identity, in natural colours) and how the camera sees them.
    geometry          how identity, action units and head pose bend the curves of a procedural face.
    features          brush strokes for eyes, brows, forehead, nose and mouth, each inside its own small window.
    renderer          a vectorised painter of procedural faces: any identity, pose, light and action units.
    drawing           a procedural face laboratory: stills and clips of drawn faces with exact ground truth.
    folders           writes the face laboratory to disk in the layouts of AffectNet (stills) and DFEW (clips).
    landmark_faces    stills with 68 exact points, drawn or stored, and how picture and points are varied together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
