"""Chapters 4 and 5, on photographs: is the learning rate what holds expectations back there?

integral-lsp trains DSNTr and I1 at the learning rate of chapter 2's heatmap matching, and both end far below it. This
is the search that was left out, for heatmap matching and DSNTr alike and in small.
"""

from dataclasses import replace

from coordreg.data.lsp import LSP
from coordreg.experiments import heatmap, integral
from coordreg.records import Reading, Run
from coordreg.train import Cosine

#: Steps and learning rates; the middle one is that of the long runs.
STEPS = {"smoke": 4, "cpu": 1000}
RATES = (1e-3, 3e-3, 9e-3)


def rates(profile: str) -> list[Run]:
    """Heatmap matching and DSNTr on LSP at three learning rates, scored on training photographs.

    python -m coordreg run photographs-rates --profile cpu; 6 runs of about four minutes; needs the pack of photographs.
    The first thousand training photographs are scored, as they are: the question is how well a network fits, and the
    test photographs choose nothing. Expect DSNTr near heatmap matching at one of the three if the rate is at fault.
    """
    if profile not in STEPS:
        raise ValueError(f"profile: got {profile!r}, photographs-rates comes in {', '.join(STEPS)}")
    steps, found = STEPS[profile], []
    for base, label, name in ((heatmap.lsp(profile), "LSP", "HM"), (integral.lsp(profile), "DSNTr", "DSNTr")):
        run = next(run for run in base if run.label == label)
        fitted = LSP(split="train", size=run.test.size, limit=1000)
        run = replace(run, test=fitted, seed=100, readings=(Reading("method"),))
        for lr in RATES:
            short = replace(run.training, steps=steps, lr=lr, schedule=Cosine(warmup=steps // 10))
            found.append(replace(run, label=f"{name} {lr:g}", training=short))
    return found
