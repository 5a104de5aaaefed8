"""words → calls     the `s4d` command; it imports every other wing and nobody imports it.

    app         the `s4d` command: draw faces, look after data, train, convert, predict, run the book.
    list_words  the options that say how lists are written, the same for every command that reads lists.
    data        `s4d faces`, `data`, `doctor`, `pack`, `crop`: drawing, looking after and cutting out data.
    models      `s4d convert` and `s4d predict`: published weights in, apparent expressions out.
    export      `s4d export`: a model file as .pt2 and ONNX, with a card beside them.
    training    `s4d train`, `study`, `rerun` and `curves`: one training, a recorded study, a run of it again.
    book        `s4d book`: which chapters, with which parameters, where and how many at a time.
    cost        `s4d cost`: what the trainings of a tier take on each type of GPU, and how we know.
    bench       `s4d bench`: how fast this library is beside others on this machine, row by row.
"""
