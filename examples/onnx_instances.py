"""Instances in an image by a file of `points2model export --onnx`, without torch and points2model.

pip install onnxruntime numpy opencv-python-headless
python onnx_instances.py model.onnx photo.jpg found.png
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def load(file: str) -> tuple[onnxruntime.InferenceSession, list[dict], float]:
    """The model, its classes (label i is classes[i]), and the score from which on instances are best kept."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    return session, json.loads(facts["classes"]), json.loads(facts["min_score"])


def find(session: onnxruntime.InferenceSession, image: np.ndarray, min_score: float) -> dict[str, np.ndarray]:
    """Masks [K, H, W], scores, labels and boxes_xyxy of an image uint8 RGB [H, W, 3], best first; K may be 0."""
    names = [one.name for one in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"images": image[None]}), strict=True))
    kept = found["valid"][0] & (found["scores"][0] >= min_score)
    return {name: found[name][0][kept] for name in ("masks", "scores", "labels", "boxes_xyxy")}


def main(model: str, image: str, out: str) -> None:
    session, classes, min_score = load(model)
    picture = cv2.imread(image)  # BGR, turned as its EXIF says
    if picture is None:
        sys.exit(f"{image}: not found, or no image")
    found = find(session, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), min_score)
    for mask, score, label, box in zip(*found.values(), strict=True):
        print(f"{classes[label]['name']} {score:.3f} {box.tolist()} {mask.sum()} pixels")
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, outlines, -1, (0, 200, 255), 1)
    cv2.imwrite(out, picture)
    print(f"{len(found['scores'])} instances; {out}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
