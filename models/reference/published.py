"""Translates the names of published weights to ours, and checks that a file has all of them and nothing else.

Three families: SOLOv2 of the public PointWSSIS implementation (the reference), its MaskRefineNet, and the MSRA ResNets
that its training starts from. Each has a table {published name: our name}, made from the network's sizes; the shapes
are those of our network.
"""

import difflib
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from models.weights import fault_of

DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
"""Blocks in the four stages."""
AFFINE = ("weight", "bias")
FROZEN = (*AFFINE, "running_mean", "running_var")
BATCH_NORM = (*FROZEN, "num_batches_tracked")
CAFFE2_ENDINGS = (
    dict(zip(FROZEN, ("_bn_s", "_bn_b", "_bn_rm", "_bn_riv"), strict=True)),
    dict(zip(FROZEN, ("_bn_gamma", "_bn_beta", "_bn_running_mean", "_bn_running_var"), strict=True)),
)
"""Suffixes of a norm's tensors in Caffe2's files."""
MSRA_UNUSED = re.compile(r"(conv1_b|(fc1000|pred)_[wb]|weight_order|lr|.*_momentum)")
"""The rest of MSRA's files: a bias without effect before a norm, the classifier, the solver's state."""


class PublishedError(Exception):
    """A file that isn't the expected published network; the text lists every fault."""


def solov2_names(backbone: str, head_convs: int) -> dict[str, str]:
    """{reference's name: ours} of every tensor of a SOLOv2 with `backbone` and `head_convs` convolutions per tower."""
    names = _resnet_names(backbone, "backbone.bottom_up.", "backbone.body.")
    for i in range(4):
        for kind in AFFINE:
            names[f"backbone.fpn_lateral{i + 2}.{kind}"] = f"backbone.fpn.inner_blocks.{i}.0.{kind}"
            names[f"backbone.fpn_output{i + 2}.{kind}"] = f"backbone.fpn.layer_blocks.{i}.0.{kind}"
    for theirs, ours in (("cate", "category"), ("kernel", "kernel")):
        for i in range(head_convs):
            # A tower is convolution, norm, ReLU, and so on: hence the steps of 3.
            conv, norm = 3 * i, 3 * i + 1
            pair = f"ins_head.{theirs}_tower", f"instance_head.{ours}_tower"
            names[f"{pair[0]}.{conv}.weight"] = f"{pair[1]}.{conv}.weight"
            names |= _each(f"{pair[0]}.{norm}", f"{pair[1]}.{norm}", AFFINE)
        names |= _each(f"ins_head.{theirs}_pred", f"instance_head.{ours}_predictor", AFFINE)
    for level in range(4):
        for j in range(max(level, 1)):
            theirs, ours = (
                f"mask_head.convs_all_levels.{level}.conv{j}",
                f"mask_branch.levels.{level}.{j}",
            )
            names |= _conv_norm(theirs, ours, AFFINE)
    return names | _conv_norm("mask_head.conv_pred", "mask_branch.predictor", AFFINE)


def refinenet_names(rates: int) -> dict[str, str]:
    """{reference's name: ours} of every tensor of a MaskRefineNet whose ASPP has `rates` dilated branches."""
    names = {"layer0.0.weight": "encoder.conv1.weight"} | _each("layer0.1", "encoder.bn1", BATCH_NORM)
    for stage, blocks in enumerate(DEPTHS["resnet101"], start=1):
        for block in range(blocks):
            # Item 0 of their first stage is the pooling before it.
            theirs = f"layer1.1.{block}" if stage == 1 else f"layer{stage}.{block}"
            ours = f"encoder.layer{stage}.{block}"
            for conv in (1, 2, 3):
                names[f"{theirs}.conv{conv}.weight"] = f"{ours}.conv{conv}.weight"
                names |= _each(f"{theirs}.bn{conv}", f"{ours}.bn{conv}", BATCH_NORM)
            if block == 0:
                names |= _conv_norm(f"{theirs}.downsample", f"{ours}.downsample", BATCH_NORM)
    names |= _conv_norm("aspp.convs.0.1", "aspp.pooled", BATCH_NORM)
    for branch in range(rates + 1):
        names |= _conv_norm(f"aspp.convs.{branch + 1}", f"aspp.branches.{branch}", BATCH_NORM)
    names |= _conv_norm("aspp.project", "aspp.project", BATCH_NORM)
    for i in range(4):
        for part in (0, 1):
            names |= _conv_norm(f"decoder_{3 - i}.conv.{part}", f"decoder.{i}.{part}", BATCH_NORM)
    return names | _each("head", "head", AFFINE)


def msra_names(backbone: str, keys: Iterable[str]) -> dict[str, str]:
    """{name in the file: torchvision's} of every tensor of a ResNet without its classifier.

    Files have Caffe2's names (`res2_0_branch2a_bn_s`, or `..._bn_gamma`) or detectron2's (`res2.0.conv1.norm.weight`),
    as the file's `keys` show.
    """
    keys = list(keys)
    names = _resnet_names(backbone, "", "")
    if not any("branch" in key for key in keys):
        return names
    endings = max(CAFFE2_ENDINGS, key=lambda ends: sum(key.endswith(tuple(ends.values())) for key in keys))
    return {_caffe2_name(theirs, endings): ours for theirs, ours in names.items()}


def _caffe2_name(detectron2_name: str, endings: Mapping[str, str]) -> str:
    place, _, what = detectron2_name.rpartition(".")
    module, is_norm = place.removesuffix(".norm"), place.endswith(".norm")
    if module == "stem.conv1":
        return f"res_conv1{endings[what]}" if is_norm else "conv1_w"
    stage, block, part = module.split(".")
    branch = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}[part]
    return f"{stage}_{block}_{branch}{endings[what] if is_norm else '_w'}"


def renamed(
    found: Mapping[str, Tensor],
    names: Mapping[str, str],
    shapes: Mapping[str, torch.Size],
    file: str,
    network: str,
) -> dict[str, Tensor]:
    """`found` by our names, checked: exactly the names of `names`, each with our shape.

    Args:
        found: tensors by the published names.
        names: {published name: ours}.
        shapes: of our tensors, by our names.
        file: for the error.
        network: the expected network, for the error.

    Returns:
        Tensors by our names; floating ones as float32.

    Raises:
        PublishedError: lists all unknown and missing names, wrong shapes and unusable values.
    """
    missing = sorted(names.keys() - found.keys())
    faults = []
    for key in sorted(found.keys() - names.keys()):
        near = difflib.get_close_matches(key, missing, n=1, cutoff=0.8)
        faults.append(f"{key}: unknown" + (f"; did you mean {near[0]}?" if near else ""))
    faults += [f"{key}: missing; expected {list(shapes[names[key]])}" for key in missing]
    for key in sorted(names.keys() & found.keys()):
        tensor, expected = found[key], shapes[names[key]]
        if tensor.shape != expected:
            faults.append(
                f"{key}: found shape {list(tensor.shape)}, expected {list(expected)}{_partner(key, found)}"
            )
        elif (fault := fault_of(names[key], tensor)) is not None:
            faults.append(f"{key}: {fault}")
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise PublishedError(
            f"{file}: taken for {network}, it has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n{listed}\n"
            "Fetch the file again; a network that was changed can't be imported"
        )
    # Copies, since tensors of a file may share memory.
    return {
        ours: (found[key].float() if found[key].is_floating_point() else found[key]).clone(
            memory_format=torch.contiguous_format
        )
        for key, ours in names.items()
    }


def _partner(key: str, found: Mapping[str, Tensor]) -> str:
    """The shape of a bias's weight, or of a weight's bias, where they disagree: it may be the wrong one."""
    place, _, kind = key.rpartition(".")
    other = f"{place}.{'bias' if kind == 'weight' else 'weight'}"
    if kind not in AFFINE or other not in found or found[other].shape[:1] == found[key].shape[:1]:
        return ""
    return f"; {other} has {list(found[other].shape)}"


def _resnet_names(backbone: str, theirs: str, ours: str) -> dict[str, str]:
    """{detectron2's name after the prefix `theirs`: torchvision's after `ours`} of a ResNet."""
    names = {f"{theirs}stem.conv1.weight": f"{ours}conv1.weight"}
    names |= _each(f"{theirs}stem.conv1.norm", f"{ours}bn1", FROZEN)
    for stage, blocks in enumerate(DEPTHS[backbone], start=1):
        for block in range(blocks):
            pair = f"{theirs}res{stage + 1}.{block}", f"{ours}layer{stage}.{block}"
            for conv in (1, 2, 3):
                names[f"{pair[0]}.conv{conv}.weight"] = f"{pair[1]}.conv{conv}.weight"
                names |= _each(f"{pair[0]}.conv{conv}.norm", f"{pair[1]}.bn{conv}", FROZEN)
            if block == 0:
                names[f"{pair[0]}.shortcut.weight"] = f"{pair[1]}.downsample.0.weight"
                names |= _each(f"{pair[0]}.shortcut.norm", f"{pair[1]}.downsample.1", FROZEN)
    return names


def _conv_norm(theirs: str, ours: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """A convolution without bias as item 0, its norm as item 1."""
    return {f"{theirs}.0.weight": f"{ours}.0.weight"} | _each(f"{theirs}.1", f"{ours}.1", kinds)


def _each(theirs: str, ours: str, kinds: tuple[str, ...]) -> dict[str, str]:
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in kinds}
