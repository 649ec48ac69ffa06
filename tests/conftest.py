"""Shape checks on: every annotated function of coordreg is checked by jaxtyping and beartype while the tests run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# an int is a float, as PEP 484 has it
install_import_hook("coordreg", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import matplotlib  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

matplotlib.use("Agg")
torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers."""
    return torch.Generator().manual_seed(0)
