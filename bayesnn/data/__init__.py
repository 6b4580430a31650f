"""Data sets: built-in ones by name, files, and arrays of one's own. Importing this imports neither JAX nor scikit-learn."""

from bayesnn.catalogue import DATASETS
from bayesnn.data.corruptions import CORRUPTIONS, corrupt, corrupt_images, corrupt_tokens, corruptions_of
from bayesnn.data.dataset import Dataset, Inputs, Task, from_arrays
from bayesnn.data.sources import data_directory, from_npz, load, outside

__all__ = [
    "CORRUPTIONS",
    "DATASETS",
    "Dataset",
    "Inputs",
    "Task",
    "corrupt",
    "corrupt_images",
    "corrupt_tokens",
    "corruptions_of",
    "data_directory",
    "from_arrays",
    "from_npz",
    "load",
    "outside",
]
