"""Data sets: built-in ones by name, files, and arrays of one's own. Importing this imports neither JAX nor scikit-learn."""

from bayesnn.catalogue import DATASETS
from bayesnn.data.dataset import Dataset, Task, from_arrays
from bayesnn.data.sources import data_directory, from_npz, load, uci

__all__ = ["DATASETS", "Dataset", "Task", "data_directory", "from_arrays", "from_npz", "load", "uci"]
