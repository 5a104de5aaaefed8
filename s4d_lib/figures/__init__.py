"""record → figure     every draw_* of the book and the pictures made of frames.

    base           the ground of every drawing: one palette, one frame, error bars.
    curves         curves over steps, epochs, layers and time; one palette, alt text.
    intervals      one dot a row with its interval, drawn by one function for scores, differences, gaps and effects.
    maps           what lies on a grid: confusions, routing, action units, tokens, and shares of classes.
    measures       agreement of gradients by block with ceiling and control, and what foretells the transfer.
    transfer       how far methods differ, which factors matter, where the sign turns, what foretells it.
    correlation    drawings of chapter 10: two readings of a clip, recalls of two tasks, signed matrices.
    routing        every draw_* of the MoAE inspector: shares, places, information, effects, dials.
    landmarks      points on faces, errors by region, what the prompter is handed.
    s2d            drawings of chapter 11: prompter maps on faces, what is frozen, anchor queues, schedules, targets.
    speed          how fast one way is beside others: ratios with their intervals, a line at one.
    sweeps         every point of a sweep as a dot, every row as its score with its interval.
    pictures       filmstrips, masks, tubelet grids and landmarks, drawn with Pillow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
