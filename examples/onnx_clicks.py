"""A mask at a click by the files of `points2model export --onnx MODEL --clicks`, without torch and points2model.

pip install onnxruntime numpy opencv-python-headless
python onnx_clicks.py FOLDER photo.jpg 120 85 apple mask.png
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


class ClickTool:
    """Encodes an image once, then draws masks at any number of clicks."""

    def __init__(self, folder: str) -> None:
        self.image_model, self.clicks_model = (
            onnxruntime.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"])
            for name in ("image", "clicks")
        )
        facts = self.clicks_model.get_modelmeta().custom_metadata_map
        self.classes = [one["name"] for one in json.loads(facts["classes"])]
        self.given: dict[str, np.ndarray] = {}

    def set_image(self, image: np.ndarray) -> None:
        """RGB uint8 [H, W, 3]."""
        names = [one.name for one in self.image_model.get_outputs()]
        self.given = dict(zip(names, self.image_model.run(None, {"images": image[None]}), strict=True))
        self.given["images"] = image[None]

    def draw(self, clicks: list[tuple[float, float, str]]) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool [K, H, W] and scores [K] at clicks: x, y in pixels of the image, and a class."""
        points = np.array([click[:2] for click in clicks], np.float32)
        labels = np.array([self.classes.index(click[2]) for click in clicks], np.int64)
        given = {**self.given, "points_xy": points, "labels": labels}
        used = {one.name: given[one.name] for one in self.clicks_model.get_inputs()}
        return tuple(self.clicks_model.run(["masks", "scores"], used))


def main(folder: str, image: str, x: str, y: str, name: str, out: str) -> None:
    tool = ClickTool(folder)
    picture = cv2.imread(image)  # BGR, turned as its EXIF says
    if picture is None:
        sys.exit(f"{image}: not found, or no image")
    if name not in tool.classes:
        sys.exit(f"{name}: found no such class, expected one of {', '.join(tool.classes)}")
    tool.set_image(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    (mask,), (score,) = tool.draw([(float(x), float(y), name)])
    cv2.imwrite(out, mask.astype(np.uint8) * 255)
    print(f"{name} {score:.3f}, {mask.sum()} pixels; {out}")


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
