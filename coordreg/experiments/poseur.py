"""Chapter 7: Poseur, the same likelihood on pooled features (RLE), and heatmap matching, on one trunk and one budget.

Drawn figures and trunk are chapter 2's, the number of steps is this chapter's own: a step with a decoder costs four of
a heatmap's. All rivals see the same images in the same order and as many of them. Where the paper has ResNet-50 and
queries of width 256, the cpu profile has a ResNet-18 of a quarter of the width and queries of 40, so that the neck's
normalisation has groups of five channels (the paper: eight). Dropout is 0: the paper names none.
"""

from dataclasses import replace

from coordreg.backbones.levels import resnet_channels
from coordreg.backbones.resnet import head, trunk_channels
from coordreg.data.augment import Augment
from coordreg.data.skeletons import COCO17
from coordreg.experiments import dark, dsnt, heatmap, integral
from coordreg.experiments.poseur_networks import (
    DEEP_READINGS,
    FIRST,
    KINDS,
    RATES,
    SCORES,
    base,
    keep,
    likelihood,
    matching,
    mobile,
    on_figures,
    pooled,
    poseur,
    rate,
    size,
)
from coordreg.experiments.scale import PCKH, network, scale
from coordreg.method import Estimator
from coordreg.metrics.outside import Outside
from coordreg.metrics.ranked import Ranked
from coordreg.queries import Jittered, Layer
from coordreg.records import Run
from coordreg.rle import DistributionHead
from coordreg.spec import spec

# -- the search and the ablations -------------------------------------------------------------------------------------


def rates(profile: str) -> list[Run]:
    """The learning-rate search, the same for heatmap, RLE and Poseur: a seed of its own, scored on other figures.

    python -m coordreg run poseur-rates --profile cpu; 12 runs of about 40 s, of Poseur about three minutes. Expect the
    heatmap to take a larger rate than the other two.
    """
    size(profile)  # refuses a profile without sizes
    return [
        run
        for kind, make in KINDS.items()
        for lr in RATES
        for run in on_figures(profile, f"{kind} {lr:g}", make(profile), kind, lr=lr, seeds=(100,), split="val")
    ]


def starts(profile: str) -> list[Run]:
    """Table 1a: reference points learned for each joint, or from the proposal; neither with noisy ones.

    python -m coordreg run poseur-starts --profile cpu; 6 runs of about two minutes. Expect the proposal ahead.
    """
    learned, proposal = poseur(profile, initial="learned", noise=None), poseur(profile, noise=None)
    return [*on_figures(profile, "learned", learned), *on_figures(profile, "proposal", proposal)]


def noise(profile: str) -> list[Run]:
    """Table 1b: noisy reference points off and on, and the released code's, 12 displaced of three copies.

    python -m coordreg run poseur-noise --profile cpu; 9 runs of two to four minutes, three of them shared with
    poseur-starts and three with poseur-levels. Expect noise to help a little.
    """
    jittered = on_figures(profile, "jittered", poseur(profile, noise=Jittered()))
    return [*on_figures(profile, "off", poseur(profile, noise=None)), *base(profile, "on"), *jittered]


def scores(profile: str) -> list[Run]:
    """Table 1c: one network with COCO's 17 joints, whose poses are ranked by equation 8, by RLE's score, by none.

    python -m coordreg run poseur-scores --profile cpu; 3 runs of about three minutes. Expect AP to fall without a score
    and AR to be equal. The records hold reliability as well: how often joints are as near as equation 8 promises.
    """
    found = on_figures(profile, "Poseur", poseur(profile, joints=17), readings=SCORES, skeleton=COCO17)
    scoring = Ranked(at=PCKH.at, limit=PCKH.limit, reaches=(0.2, 0.05))
    augment = Augment(flip=0.5, pairs=COCO17.pairs)
    return [replace(run, train=replace(run.train, augment=augment), scoring=scoring) for run in found]


#: Table 1d's rows: names of the levels by how many there are.
LEVELS = {1: "Res5", 2: "Res4-5", 3: "Res3-5", 4: "Res2-5"}
#: Table 1e's rows.
LAYERS = (3, 4, 5, 6)


def levels(profile: str) -> list[Run]:
    """Table 1d: attention to one, two, three and all four levels of features.

    python -m coordreg run poseur-levels --profile cpu; 12 runs of one and a half to three minutes. Expect accuracy to
    grow with each level.
    """
    fewer = [run for n in (1, 2, 3) for run in on_figures(profile, LEVELS[n], poseur(profile, levels=n))]
    return [*fewer, *base(profile, LEVELS[4])]


def depth(profile: str) -> list[Run]:
    """Table 1e: three to six layers of the decoder; every answer on the way is read as well.

    python -m coordreg run poseur-depth --profile cpu; 12 runs of three to five minutes, three of them shared with
    poseur-levels. Expect a gain from three to four layers and little afterwards.
    """
    deeper = [
        run
        for n in LAYERS[1:]
        for run in on_figures(profile, f"{n} layers", poseur(profile, layers=n), readings=DEEP_READINGS)
    ]
    return [*base(profile, "3 layers", DEEP_READINGS), *deeper]


def attention(profile: str) -> list[Run]:
    """Supplement, table 2: self-attention between the joints off and on.

    python -m coordreg run poseur-attention --profile cpu; 6 runs of about three minutes, three of them shared with
    poseur-levels. Expect it to help.
    """
    off = poseur(profile, layer={"self_attention": False})
    return [*on_figures(profile, "off", off), *base(profile, "on")]


def shared(profile: str) -> list[Run]:
    """Supplement, table 3: six layers with weights of their own, and six times the same layer.

    python -m coordreg run poseur-shared --profile cpu; 6 runs of about five minutes, three of them shared with
    poseur-depth. Expect shared weights slightly behind.
    """
    own, one = poseur(profile, layers=6), poseur(profile, layers=6, shared=True)
    return [*on_figures(profile, "own", own), *on_figures(profile, "shared", one)]


def kinds(profile: str) -> list[Run]:
    """Supplement, table 4: MSDA, which projects before it samples, and EMSDA; they differ at the border alone.

    python -m coordreg run poseur-kinds --profile cpu; 6 runs of two to three minutes, three of them shared with
    poseur-levels. Expect equal accuracy. (On maps as small as these MSDA is the faster one, as the chapter derives.)
    """
    msda = poseur(profile, layer={"efficient": False})
    return [*on_figures(profile, "MSDA", msda), *base(profile, "EMSDA")]


# -- rivals -----------------------------------------------------------------------------------------------------------


def trunks(profile: str) -> list[Run]:
    """Table 2a: heatmap and Poseur on two trunks, the ResNet and a narrow MobileNet-V2.

    python -m coordreg run poseur-trunks --profile cpu; 12 runs of one to three minutes, three of them shared with
    poseur-levels. Learning rates are those of the ResNet. Expect Poseur ahead on both and most on the smaller trunk.
    """
    trunk = mobile(profile)
    maps = spec(head, channels=trunk[1][-1], joints=16, widths=(scale(profile).deconv,) * 3)
    light = spec(Estimator, backbone=trunk[0], head=maps, method=heatmap.H1)
    return [
        *on_figures(profile, "heatmap ResNet", matching(profile), "heatmap"),
        *base(profile, "Poseur ResNet"),
        *on_figures(profile, "heatmap MobileNet-V2", light, "heatmap"),
        *on_figures(profile, "Poseur MobileNet-V2", poseur(profile, trunk=trunk)),
    ]


def sizes(profile: str) -> list[Run]:
    """Table 2b: heatmap and Poseur by the size of the image, those of dark-sizes; the map has a quarter of the side.

    python -m coordreg run poseur-sizes --profile cpu; 18 runs of half a minute to five minutes, six of them shared with
    poseur-trunks. Where the last level has fewer cells than a head looks at, a head looks at as many as it has.
    Learning rates are those of the middle size. Expect Poseur's lead to be widest on the smallest image.
    """
    size(profile)  # refuses a profile without sizes
    found = []
    for side in dark.SIDES[profile]:
        points = min(Layer().points, (side // 32) ** 2)
        made = poseur(profile, layer={"points": points})
        shared = keep(profile) if side == scale(profile).size else 0  # the runs that other tables have too
        both = [
            *on_figures(profile, f"heatmap {side} px", matching(profile), "heatmap"),
            *on_figures(profile, f"Poseur {side} px", made, keep=shared),
        ]
        found += [replace(r, train=replace(r.train, size=side), test=replace(r.test, size=side)) for r in both]
    return found


def rle(profile: str) -> list[Run]:
    """Supplement, section 6: RLE, and Poseur without its score, which PCK does not look at.

    python -m coordreg run poseur-rle --profile cpu; 9 runs of 40 s to three minutes, six of them shared with
    poseur-trunks. Heatmap matching is there for the page. Expect Poseur ahead of RLE.
    """
    return [
        *on_figures(profile, "heatmap", matching(profile), "heatmap"),
        *on_figures(profile, "RLE", pooled(profile), "RLE"),
        *base(profile, "Poseur", DEEP_READINGS),
    ]


def truncated(profile: str) -> list[Run]:
    """Supplement, figure 1: figures that the frame cuts, so that a quarter of the joints lie outside; four methods.

    python -m coordreg run poseur-truncated --profile cpu; 12 runs of 40 s to three minutes. Trained and tested on cut
    figures. Learning rates are those of whole figures, DSNTr's chapter 4's. Expect heatmap and DSNTr never to point
    outside and RLE and Poseur to do so, worse with the distance. The records hold errors by that distance.
    """
    regularised = network(profile, dsnt.REGULARISED, 3)
    other = dsnt.CHOSEN.get(profile, {}).get("DSNTr")
    found = [
        *on_figures(profile, "heatmap", matching(profile), "heatmap", truncation=1.0),
        *on_figures(profile, "DSNTr", regularised, "heatmap", lr=other, readings=FIRST, truncation=1.0),
        *on_figures(profile, "RLE", pooled(profile), "RLE", truncation=1.0),
        *on_figures(profile, "Poseur", poseur(profile), truncation=1.0),
    ]
    scoring = Outside(at=PCKH.at, limit=PCKH.limit, exclude=PCKH.exclude)
    return [replace(run, scoring=scoring) for run in found]


def lsp(profile: str) -> list[Run]:
    """Photographs: RLE and Poseur on the network, images and budget of heatmap-lsp, beside the earlier chapters' runs.

    python -m coordreg run poseur-lsp --profile cpu; 12 runs, the heatmap's and DSNTr's shared with heatmap-lsp and
    integral-lsp; RLE's of about ten, Poseur's of 20 to 30 minutes on one core each; needs the pack of photographs. DARK
    is a reading of the heatmap's runs, which dark-lsp has. The learning rate is heatmap-lsp's for all but RLE and
    Poseur, which take that of the drawn figures.
    """
    size(profile)  # refuses a profile without sizes
    base = [run for run in heatmap.lsp(profile) if run.label == "LSP"]
    trunk = base[0].estimator["backbone"]
    made = (trunk, resnet_channels(trunk["depth"], trunk["width"]))
    last = spec(DistributionHead, channels=trunk_channels(trunk["depth"], trunk["width"]), joints=14)
    rivals = {
        "RLE": spec(Estimator, backbone=trunk, head=last, method=likelihood(profile)),
        "Poseur": poseur(profile, trunk=made, joints=14),
    }
    found = [replace(run, label="heatmap", readings=heatmap.READINGS[:2]) for run in base]
    found += [replace(r, readings=r.readings[:1]) for r in integral.lsp(profile) if r.label == "DSNTr"]
    for kind, estimator in rivals.items():
        training = replace(base[0].training, lr=rate(profile, kind))
        found += [replace(r, label=kind, estimator=estimator, training=training, readings=FIRST) for r in base]
    return found
