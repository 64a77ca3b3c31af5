"""Torchvision's Mask R-CNN on strong and pseudo labels, without points2model.

points2model export --what training --format coco --out set
python mask_rcnn.py set model.pt --steps 1000      # needs torchvision and pycocotools

The mask loss of an object counts as much as its pseudo label's score; a true mask counts 1. Regions to ignore are left
out: Mask R-CNN has none.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import maskrcnn_resnet50_fpn, roi_heads
from torchvision.transforms.v2.functional import pil_to_tensor


class CocoFolder(Dataset):
    """Images of a folder with _annotations.coco.json, and their objects."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.coco = folder, COCO(str(folder / "_annotations.coco.json"))
        self.images = self.coco.getImgIds()
        self.labels = {
            category: n for n, category in enumerate(sorted(self.coco.cats), start=1)
        }  # 0: background

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """RGB 0..1 [3, H, W]; boxes xyxy [K, 4], labels, scores [K], masks [K, H, W]."""
        (image,) = self.coco.loadImgs(self.images[n])
        picture = ImageOps.exif_transpose(Image.open(self.folder / image["file_name"]))  # as masks lie on it
        pixels = pil_to_tensor(picture.convert("RGB")).float() / 255
        rows = [
            row for row in self.coco.imgToAnns[image["id"]] if not row["iscrowd"] and min(row["bbox"][2:]) > 0
        ]
        x, y, width, height = torch.tensor([row["bbox"] for row in rows]).reshape(-1, 4).unbind(1)
        masks = [torch.from_numpy(self.coco.annToMask(row)) for row in rows]
        return pixels, {
            "boxes": torch.stack([x, y, x + width, y + height], 1),
            "labels": torch.tensor([self.labels[row["category_id"]] for row in rows], dtype=torch.long),
            "scores": torch.tensor([row.get("score", 1.0) for row in rows]),
            "masks": torch.stack(masks) if masks else torch.zeros(0, *pixels.shape[1:], dtype=torch.uint8),
        }


class WeightedMaskLoss:
    """In place of torchvision's loss: the mean over objects, by their scores."""

    scores: list[Tensor]

    def __call__(
        self, logits: Tensor, boxes: list[Tensor], masks: list[Tensor], labels: list[Tensor], of: list[Tensor]
    ) -> Tensor:
        side = logits.shape[-1]
        parts = zip(masks, boxes, of, strict=True)
        truth = torch.cat([roi_heads.project_masks_on_boxes(*part, side) for part in parts])
        label, weight = (
            torch.cat([one[rows] for one, rows in zip(values, of, strict=True)])
            for values in (labels, self.scores)
        )
        if not len(truth):
            return logits.sum() * 0
        drawn = logits[torch.arange(len(label)), label]
        loss = F.binary_cross_entropy_with_logits(drawn, truth, reduction="none").mean((1, 2))
        return (loss * weight).sum() / weight.sum().clamp(min=1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", type=Path, help="the exported folder")
    parser.add_argument("out", type=Path, help="the file of weights to write")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=640, help="pixels of an image's shorter side")
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument(
        "--pretrained", action="store_true", help="start from COCO's weights, which are downloaded"
    )
    given = parser.parse_args()
    data = CocoFolder(given.set / "train")
    model = maskrcnn_resnet50_fpn(
        weights="DEFAULT" if given.pretrained else None, weights_backbone=None, min_size=given.side,
        max_size=2 * given.side,
    )  # fmt: skip
    other = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=len(data.labels) + 1)
    model.roi_heads.box_predictor = other.roi_heads.box_predictor
    model.roi_heads.mask_predictor = other.roi_heads.mask_predictor
    loss_of_masks = WeightedMaskLoss()
    roi_heads.maskrcnn_loss = loss_of_masks
    optimizer = torch.optim.SGD(model.parameters(), lr=given.lr, momentum=0.9, weight_decay=1e-4)
    step = 0
    while step < given.steps:
        for rows in DataLoader(data, given.batch, shuffle=True, collate_fn=list):
            images, targets = zip(*rows, strict=True)
            loss_of_masks.scores = [target["scores"] for target in targets]
            losses = model(list(images), list(targets))
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
            step += 1
            print(step, " ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()), flush=True)
            if step == given.steps:
                break
    torch.save(model.state_dict(), given.out)


if __name__ == "__main__":
    main()
