"""A scene that 3D Slicer opens with a double click: CT, segmentation with names and colours, surfaces."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from xml.sax.saxutils import quoteattr

import SimpleITK as sitk

from shapemodel.anatomy import bone
from shapemodel.files import replacing
from shapemodel.labelmaps.slicer import write_seg_nrrd
from shapemodel.labelmaps.volumes import write_volume
from shapemodel.mesh import Mesh
from shapemodel.reasons import InputError
from shapemodel.study.geometry import require_axial

_DATED = (1980, 1, 1, 0, 0, 0)
"""Times stay out, so that the same scene has the same bytes."""

WINDOW_HU, LEVEL_HU = 1500.0, 300.0
"""A window in which bones are told apart."""


def write_scene(
    path: Path, *, ct: sitk.Image | None = None, labels: sitk.Image | None = None, mesh: Mesh | None = None
) -> Path:
    """Write an .mrb with what is given of CT (int16 HU), labels (uint8) and surfaces, all mm LPS.

    Inside: ``scene.mrml``, ``Data/ct.nrrd``, ``Data/labels.seg.nrrd`` and one ``Data/NAME.vtp`` a bone.
    """
    if path.suffix.lower() != ".mrb":
        raise InputError(f"{path}: expected a name that ends in .mrb")
    if ct is None and labels is None and mesh is None:
        raise InputError(f"{path}: expected a CT, labels or surfaces for the scene, found none of them")
    top = path.stem
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, replacing(path) as part:
        work = Path(folder)
        files, nodes = [], [_HEADER]
        if ct is not None:
            require_axial(ct)
            files.append(write_volume(ct, work / "ct.nrrd"))
            nodes.append(_volume())
        if labels is not None:
            require_axial(labels)
            files.append(write_seg_nrrd(labels, work / "labels.seg.nrrd"))
            nodes.append(_segmentation(ct is not None))
        if mesh is not None:
            for number, label in enumerate(mesh.labels, start=1):
                files.append(_write_surface(mesh, label, work))
                nodes.append(_model(number, label))
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            scene = "\n".join([*nodes, "</MRML>", ""])
            archive.writestr(_entry(f"{top}/{top}.mrml"), scene)
            for file in files:
                archive.writestr(_entry(f"{top}/Data/{file.name}"), file.read_bytes())
    return path


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATED)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


def _write_surface(mesh: Mesh, label: int, folder: Path) -> Path:
    from shapemodel.mesh import write_vtp

    vertices, faces, ids = mesh.select(label)
    return write_vtp(Mesh(vertices, faces, mesh.bone[ids]), folder / f"{bone(label).name}.vtp")


_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n<MRML version="Slicer5.6.2" userTags="">'


def _node(kind: str, **attributes: str) -> str:
    return f"<{kind} " + " ".join(f"{k}={quoteattr(v)}" for k, v in attributes.items()) + f"></{kind}>"


def _volume() -> str:
    return "\n".join(
        [
            _node(
                "VolumeArchetypeStorage",
                id="vtkMRMLVolumeArchetypeStorageNode1",
                name="ct storage",
                fileName="Data/ct.nrrd",
                useCompression="1",
                centerImage="0",
            ),
            _node(
                "VolumeDisplay",
                id="vtkMRMLScalarVolumeDisplayNode1",
                name="ct display",
                references="color:vtkMRMLColorTableNodeGrey;",
                window=f"{WINDOW_HU:g}",
                level=f"{LEVEL_HU:g}",
                autoWindowLevel="0",
                interpolate="1",
            ),
            _node(
                "Volume",
                id="vtkMRMLScalarVolumeNode1",
                name="ct",
                references="display:vtkMRMLScalarVolumeDisplayNode1;storage:vtkMRMLVolumeArchetypeStorageNode1;",
            ),
        ]
    )


def _segmentation(on_ct: bool) -> str:
    references = "display:vtkMRMLSegmentationDisplayNode1;storage:vtkMRMLSegmentationStorageNode1;"
    if on_ct:
        references += "referenceImageGeometryRef:vtkMRMLScalarVolumeNode1;"
    return "\n".join(
        [
            _node(
                "SegmentationStorage",
                id="vtkMRMLSegmentationStorageNode1",
                name="labels storage",
                fileName="Data/labels.seg.nrrd",
                useCompression="1",
                CropToMinimumExtent="0",
            ),
            _node(
                "SegmentationDisplay", id="vtkMRMLSegmentationDisplayNode1", name="labels display", visibility="true"
            ),
            _node(
                "Segmentation",
                id="vtkMRMLSegmentationNode1",
                name="labels",
                references=references,
            ),
        ]
    )


def _model(number: int, label: int) -> str:
    b = bone(label)
    return "\n".join(
        [
            _node(
                "ModelStorage",
                id=f"vtkMRMLModelStorageNode{number}",
                name=f"{b.name} storage",
                fileName=f"Data/{b.name}.vtp",
                useCompression="1",
                coordinateSystem="LPS",
            ),
            _node(
                "ModelDisplay",
                id=f"vtkMRMLModelDisplayNode{number}",
                name=f"{b.name} display",
                color=" ".join(f"{c / 255:.6f}" for c in b.color),
                visibility="true",
            ),
            _node(
                "Model",
                id=f"vtkMRMLModelNode{number}",
                name=b.name,
                references=f"display:vtkMRMLModelDisplayNode{number};storage:vtkMRMLModelStorageNode{number};",
            ),
        ]
    )
