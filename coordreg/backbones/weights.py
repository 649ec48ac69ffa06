"""Torchvision's published weights by name, from its cache or the network, with errors that say what to do."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torchvision.models import get_weight


def published(name: str, example: str) -> Mapping[str, Any]:
    """The weights' tensors by name, checked against their hash. example: a name that would do, for the error.

    Raises ValueError for a name that torchvision does not have, without a network, and for a damaged file.
    """
    try:
        weights = get_weight(name)
    except (ValueError, KeyError) as error:
        raise ValueError(f"torchvision has no weights named {name!r}; expected a name such as {example}") from error
    try:
        state: Mapping[str, Any] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, HTTPException) as error:  # URLError is an OSError
        raise ValueError(
            f"the weights {name} are not in torch's cache and could not be downloaded ({error}); run once with a "
            "network, or copy the file into the folder `hub/checkpoints` of TORCH_HOME"
        ) from error
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"the file of {name} in torch's cache is damaged ({error}); delete {Path(weights.url).name} from the "
            "folder `hub/checkpoints` of TORCH_HOME and run again"
        ) from error
    return state
