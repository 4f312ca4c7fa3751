"""shrinkc: a trained CNN in, the file that runs fastest on one named device out."""

__version__ = "0.1.0"
