"""COCO's score for its own whole pictures: pycocotools reads the file of annotations, crowds and all."""

from dataclasses import dataclass

from coordreg.coords import Points
from coordreg.data.coco import COCO
from coordreg.data.scenes import SceneStore
from coordreg.data.store import Store
from coordreg.metrics.coco_ap import evaluate
from coordreg.metrics.scoring_people import ScoresPeople, ScoringPeople, found, told


@dataclass(frozen=True)
class ScoringScenes(ScoringPeople):
    """AP and its companions as for every COCO table; no rescoring: the network's person scores.

    In AP, answers in crowd regions, and for people of whom no joint is labelled, do not count either way. The OKS by
    picture is that of `ScoringPeople`, over people who have labels: it knows of no crowds, and an answer in one that is
    among the surest takes the place of another. root, split: of the COCO whose annotations are read again.
    """

    root: str = "coco"
    split: str = "val2017"

    def score(self, points: Points, data: Store) -> ScoresPeople:
        """Score predictions, one for each picture of `data` in order. ValueError for another data set or shape."""
        if not isinstance(data, SceneStore) or points.coords.shape != data.coords.shape:
            raise ValueError(
                f"ScoringScenes: got predictions of shape {tuple(points.coords.shape)} for a {type(data).__name__} of "
                f"{tuple(data.coords.shape)}, expected the shape of a SceneStore; give the network its `places`"
            )
        ids = data.image_ids.tolist()
        rows = [{**row, "image_id": ids[row["image_id"]]} for row in found(points, data)]
        values = evaluate(COCO(root=self.root, split=self.split).annotations(), rows, ids)
        return ScoresPeople(values, told(points, data), points.coords)


__all__ = ["ScoringScenes"]
