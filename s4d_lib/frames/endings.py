"""name → kind     which endings are pictures and which are films: one table for readers and tools alike.

An ending says what a file claims to be. Whether it is that is looked up in its bytes (`impostors.py`).
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm",
                  ".heic", ".heif")
HEIC_SUFFIXES = (".heic", ".heif")  # need pillow-heif
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".mts",
                  ".m2ts", ".3gp", ".ogv", ".gif", ".vob", ".asf", ".dv", ".mxf", ".h264", ".hevc", ".mjpeg")
# What Pillow may take a picture for. Left to itself it decides by content alone, among others for PostScript, which
# it hands to Ghostscript.
PICTURE_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF")
