"""A user's model and example inputs become a network that can be worked on."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from shrinkc.compiler.capture import capture
from shrinkc.compiler.capture.names import returned_nodes, with_output_names, word
from shrinkc.compiler.capture.structure import Restored, Structure, structure_of
from shrinkc.compiler.images.annotations import require_apart
from shrinkc.compiler.images.source import Given, ImageSource, image_source, letterboxed
from shrinkc.compiler.images.tensors import TensorImages, in_parts
from shrinkc.compiler.load.file_kind import identify
from shrinkc.compiler.load.load import MAX_BYTES, read_model, refuse_architecture
from shrinkc.compiler.load.onnx.file import read_onnx
from shrinkc.compiler.load.onnx.network import onnx_network
from shrinkc.compiler.load.trusted import ExportedNetwork
from shrinkc.compiler.pipeline.run import sample_inputs
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.probes import at_batch
from shrinkc.compiler.reference.reference import Reference, translate
from shrinkc.compiler.support.checks import check_kind, path_of
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import named
from shrinkc.compiler.tasks.asked import AskedTask
from shrinkc.compiler.tasks.by_outputs import task_of
from shrinkc.compiler.tasks.classification import has_scores
from shrinkc.compiler.tasks.dense import Dense
from shrinkc.compiler.tasks.task import Answer, LabelKind, Task
from shrinkc.errors import InputError, ModelRunError
from shrinkc.passes import ir
from shrinkc.passes.base import copy_graph
from shrinkc.passes.recurrent import Recurrent


@dataclass(frozen=True)
class ModelFile:
    """A network in a file, loaded when it is needed, as `shrinkc.load` does.

    path   a pickled module or a state dict (.pt, .pth, .th), a .safetensors, or a .onnx
    arch   "package.module:factory" or "package.module:factory(num_classes=10)" that builds the
           network of a state dict
    trust  load files that can run code; only for files you made
    """

    path: str | os.PathLike[str]
    arch: str | None = None
    trust: bool = False


EXAMPLES = 32  # images that tell what a network's outputs mean
MOST_NUMBERS = 1 << 28  # of an input that is given by its shape: 1 GiB

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, Recurrent)
LabelUse = Literal["read", "if they fit", "unread"]
Model = nn.Module | ModelFile | str | os.PathLike[str]


@dataclass(frozen=True)
class WholeShape:
    """Of an input of whole numbers, or of truth: `dtype` is one of `ir.INTEGERS`."""

    shape: tuple[int, ...]
    dtype: str


Shape = Sequence[int] | WholeShape
Inputs = Tensor | Sequence[Tensor] | Sequence[int] | Sequence[Shape] | None


@dataclass(frozen=True, eq=False)
class Subject:
    """What every function works on: a copy of the user's model, on the CPU, in float32 and in eval
    mode, and example inputs for it. The user's own module is left as it is.

    name       of the file, or of the class
    structure  of what the model returns
    notes      on how its file was read
    source     the user's own network where `model` is a translation of it: an ONNX file's
    outputs    names of what it returns, where it has any
    """

    name: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    structure: Structure
    notes: tuple[str, ...] = ()
    source: nn.Module | None = None
    outputs: tuple[str, ...] = ()

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(x.shape) for x in self.inputs)

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """Of the graph's; those of a network with one input matter to nobody. Raises
        CaptureError."""
        alone = len(self.inputs) == 1
        return ("input",) if alone else tuple(self.graph.meta["input_shapes"])

    @cached_property
    def reference(self) -> Reference:
        """The user's model as the function that files are compared with."""
        return Reference(self.model if self.source is None else self.source)

    @cached_property
    def original(self) -> Original:
        """The same, which remembers what it returned: capture and verification share it."""
        return Original.of_model(self.reference, self.inputs)

    @cached_property
    def graph(self) -> fx.GraphModule:
        """Canonical. Raises CaptureError."""
        if isinstance(self.model, fx.GraphModule) and "input_shapes" in self.model.meta:
            return self.model  # it is canonical already
        graph = capture(self.model, self.inputs, self.reference, self.original)
        graph.meta["notes"] = [*self.notes, *graph.meta["notes"]]
        names = self.outputs or self.structure.names(len(returned_nodes(graph)))
        return with_output_names(graph, names)

    def images(
        self, given: Mapping[str, tuple[Given | None, LabelUse]], asked: AskedTask
    ) -> tuple[Task, dict[str, ImageSource | None]]:
        """What a user gives as images for it, by parameter, and what its outputs mean: as `asked`
        says, otherwise told by its outputs on some of the images, and by their labels. The images
        are labelled by the outputs, where those are classes.

        Labels of class folders are "read"; used "if they fit", for what needs none; or "unread".
        Those that come with tensors are always read.

        Raises InputError, ImageError: labels that are none of the network's outputs.
        """
        shapes, sources = self.input_shapes, dict[str, ImageSource | None].fromkeys(given)
        others_are_judged = given.get("evaluation", (None, ""))[0] is not None

        def read(name: str, one: Given, use: LabelUse) -> ImageSource:
            found = image_source(
                *(one, shapes, name),
                labelled=use != "unread",
                optional=use == "if they fit",
                unlabelled=use == "if they fit" and others_are_judged,
                dtypes=[x.dtype for x in self.inputs],
                names=self.input_names,
            )
            maps = found.annotations is not None and isinstance(asked.task, Dense)
            return found.as_numbers() if maps else found

        images = {
            name: read(name, one, use) for name, (one, use) in given.items() if one is not None
        }
        for name, one in images.items():
            self._require_known(one, name)
        if any(one.kind == "boxes" for one in images.values()):  # a network reads all in one way
            for name, (one, use) in given.items():
                if one is not None and images[name].preprocessing is not None:
                    images[name] = read(name, letterboxed(one), use)
        require_apart(x for one in images.values() if (x := one.annotations) is not None)
        answer, samples = self._answers(images.values())
        labelled = {name: one for name, one in images.items() if one.labelled}
        optional = {  # what is not read where it does not fit
            name
            for name, one in labelled.items()
            if given[name][1] == "if they fit" and not one.in_memory and not _fits(answer, one)
        }
        named = any(one.named for one in images.values())
        said = not images or named or len(optional) < len(labelled)
        others = [one for one in labelled.values() if one.kind != "classes"]
        kind: LabelKind | None = others[0].kind if others else None
        task = asked.task or task_of(answer, samples, said=said, labels=kind)
        task = asked.completed(task).of_inputs(shapes).scaled(answer, samples)
        for name, one in labelled.items():
            unread = name in optional and task.reads in (None, "classes")
            if unread:
                images[name] = one.without_labels()
                continue
            if asked.metric is not None:  # it is tried on answers and labels of the same images
                answer, samples = self._answers([one])
            images[name] = _labelled(one, name, task, (answer, samples))
        for name in images.keys() - labelled.keys():
            images[name] = _numbered(images[name], name, task, answer)
        if asked.metric is not None and not any(one.labelled for one in images.values()):
            raise InputError(
                "`metric` compares outputs with labels, and no images come with any",
                "give images with labels, or leave it out",
            )
        sources.update(images)
        return task, sources

    def scored(self, task: Task) -> bool:
        """Whether `task` tells of its answers how many agree and are right."""
        return task.judges(self._answers(())[0])

    def classifies(self, task: Task) -> bool:
        """Whether its answers are class scores."""
        answer = self._answers(())[0]
        named = task.reads in (None, "classes")
        return named and task.judges(answer) and task.classes(answer) is not None

    def _require_known(self, source: ImageSource, name: str) -> None:
        """Raise InputError for whole numbers that the network has no answer to, such as words that
        its table lacks. The least and the largest of every place tell, and where it does not run on
        these, it is run on every sample."""
        given = source.images
        if not isinstance(given, TensorImages) or not any(map(_counts, given.inputs)):
            return
        ends = tuple(
            torch.stack((x.amin(0), x.amax(0)))
            if _counts(x)
            else x[:1].repeat(2, *(1,) * (x.ndim - 1))
            for x in given.inputs
        )
        if all(self._trouble(few) is None for few in in_parts(ends, 1)):
            return
        for i, one in enumerate(in_parts(given.inputs, 1)):
            trouble = self._trouble(one)
            if trouble is not None:
                raise InputError(f"`{name}`, sample {i}: {trouble}", "give what the network knows")

    def _trouble(self, one: tuple[Tensor, ...]) -> str | None:
        """Why the network does not run on a sample, or None."""
        try:
            self.reference(at_batch(one, len(self.inputs[0])))
        except ModelRunError as error:
            return error.message
        return None

    def _answers(self, images: Iterable[ImageSource]) -> tuple[Answer, int]:
        """The outputs for some of the first images that can be read, else for the example inputs,
        and how many they are for: computed in batches as the network was captured with. Of an
        output that is no (batch, …), those of the first."""
        examples = (found for one in images if (found := one.examples(EXAMPLES)))
        x = next((x for x, _ in examples), None)
        batch = len(self.inputs[0])
        if x is None:
            return self.reference(self.inputs), batch
        x = at_batch(x, max(batch, len(x[0])))
        whole = tuple(one[: len(one) // batch * batch] for one in x)
        parts = [self.reference(few) for few in in_parts(whole, batch)]
        columns = zip(*parts, strict=True)
        answer = tuple(torch.cat(one) if len(one[0]) == batch else one[0] for one in columns)
        return answer, len(parts) * batch

    def restored(self, graph_module: fx.GraphModule) -> Restored:
        """`graph_module` returning what the model returned."""
        return Restored(graph_module, self.structure)

    def layered(self, progress: Progress) -> fx.GraphModule:
        """The graph. Raises CaptureError, and InputError for a network without layers."""
        with progress.task("Capturing"):
            graph = self.graph
        require_layers(graph)
        return graph


def subject_of(model: Model, inputs: Inputs = None, name: str | None = None) -> Subject:
    """`model` is a module, a captured graph, a file, or its path; `inputs` are
    tensors or shapes, (N, …) each. Without them: a captured graph's own, those that an ONNX file
    declares, otherwise (1, C, 224, 224) for the first convolution's C.

    Raises InputError that names the parameter, ModelRunError where the model does not run on such
    inputs.
    """
    if name is not None:
        check_kind("name", name, str, "a string")
    if torch.is_autocast_enabled("cpu"):
        raise InputError("the network is compared in float32; call shrinkc outside torch.autocast")
    notes: tuple[str, ...] = ()
    if isinstance(model, str | os.PathLike):
        model = ModelFile(model)
    if isinstance(model, ModelFile):
        path = path_of("model", model.path)
        name = name or path.name
        if identify(path, MAX_BYTES) == "onnx":
            refuse_architecture(path, model.arch)
            return _of_onnx(path, inputs, name)
        loaded = read_model(path, arch=model.arch, trust=model.trust)
        model, notes = loaded.model, loaded.notes
    own = _copied(model)
    graph = own.graph_module if isinstance(own, Restored) else own
    if isinstance(graph, fx.GraphModule) and "input_shapes" in graph.meta:
        shapes = _own_shapes(graph, inputs)
        whole = any(map(ir.whole_input, graph.graph.find_nodes(op="placeholder")))
        tensors = sample_inputs(graph, torch.float32) if whole else random_inputs(shapes)
    else:
        graph, tensors = own, _inputs(own, inputs)
    translate(own, tensors)
    structure = own.structure if isinstance(own, Restored) else structure_of(own, tensors)
    return Subject(name or _class_name(model), graph, tensors, structure, notes)


def _of_onnx(path: Path, inputs: Inputs, name: str) -> Subject:
    """A translation, beside the file that it must equal."""
    file = read_onnx(path)
    shapes = file.shapes(None if inputs is None else _shapes(inputs))
    network = onnx_network(file, shapes)
    tensors = _inputs(network.module, shapes if inputs is None else inputs)
    structure = structure_of(network.module, tensors)
    outputs = tuple(word(one) or f"output_{i}" for i, one in enumerate(file.outputs))
    return Subject(name, network.module, tensors, structure, (), network.original, outputs)


def _class_name(model: nn.Module) -> str:
    return type(_unwrapped(model)).__name__


def _copied(model: object) -> nn.Module:
    """On the CPU, in float32, in eval mode."""
    if isinstance(model, type):
        raise InputError(f"`model` is the class {model.__name__}; give an instance of it")
    if isinstance(model, dict):
        raise InputError(
            "`model` is a dictionary; build the network and call its load_state_dict first"
        )
    if not isinstance(model, nn.Module):
        raise InputError(
            f"`model` is a {type(model).__name__}; give a torch.nn.Module or the path of a file"
        )
    if isinstance(model, fx.GraphModule) and "input_shapes" in model.meta:
        return copy_graph(model).eval()
    model = _unwrapped(model)
    numbers = (*model.parameters(), *model.buffers())
    if any(isinstance(x, UninitializedParameter | UninitializedBuffer) for x in numbers):
        raise InputError("`model` has lazy layers without weights; run it once on an input first")
    if any(x.is_meta for x in numbers):
        raise InputError("`model` has no numbers (device meta); load its weights first")
    if any(bool(x.isnan().any()) for x in model.parameters()):
        raise InputError("`model` has weights that are NaN; train it anew")
    # what deepcopy refuses: tensors that were computed, such as the weight of an old weight_norm
    computed: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        with quiet():  # scripts and exported graphs warn while they are copied
            return copy.deepcopy(model, computed).to("cpu", torch.float32).eval()
    except Exception as error:  # an attribute's own: a lock, an open file, a generator
        raise InputError(
            f"`model` cannot be copied: {named(error)}", "take what no network needs out of it"
        ) from error


def _unwrapped(model: nn.Module) -> nn.Module:
    """The user's network in what `torch.compile` and data parallelism put around it."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return cast(nn.Module, cast(Any, model).module)
    inner: Any = getattr(model, "_orig_mod", model)  # torch.compile's OptimizedModule
    return cast(nn.Module, inner)


def _own_shapes(graph: fx.GraphModule, inputs: Inputs) -> tuple[tuple[int, ...], ...]:
    """Of a captured graph, which is made for one shape."""
    own = tuple(tuple(s) for s in graph.meta["input_shapes"].values())
    if inputs is not None and _shapes(inputs) != own:
        wanted = " ".join(",".join(map(str, s)) for s in own)
        raise InputError(f"this network is made for `inputs` {wanted}; capture it anew")
    return own


def _inputs(model: nn.Module, inputs: Inputs) -> tuple[Tensor, ...]:
    if isinstance(model, ExportedNetwork) and model.input_shapes is not None:
        if inputs is None:
            return random_inputs(model.input_shapes)
        _check_exported(model, _shapes(inputs))
    if inputs is None:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None:
            raise InputError(
                "the model does not tell the shape of its input; give `inputs` N,C,H,W"
            )
        return random_inputs([(1, first.in_channels, 224, 224)])
    tensors = (inputs,) if isinstance(inputs, Tensor) else inputs
    given: Any = tensors  # what a user gives may be anything
    if isinstance(given, list | tuple) and given and all(isinstance(x, Tensor) for x in tensors):
        return tuple(_input(x) for x in cast(Sequence[Tensor], tensors))
    floats = random_inputs(_shapes(inputs))
    several = [inputs] if isinstance(inputs, WholeShape) else cast("Sequence[Any]", inputs)
    kinds = {i: one.dtype for i, one in enumerate(several) if isinstance(one, WholeShape)}
    return tuple(
        _random_whole(model, x, kinds[i]) if i in kinds else x for i, x in enumerate(floats)
    )


def _random_whole(model: nn.Module, like: Tensor, dtype: str) -> Tensor:
    """Seeded numbers that every embedding of the model has rows for; 0 and 1 where it has none."""
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    limit = 2 if dtype == "bool" or not tables else min(tables)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(limit, like.shape, generator=generator).to(getattr(torch, dtype))


def _check_exported(model: ExportedNetwork, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Raise InputError for shapes that the file was not exported for."""
    own = model.input_shapes or ()
    fixed = list(map(len, own)) == list(map(len, shapes)) and all(
        may or a == b
        for free, wanted, given in zip(model.open_sizes, own, shapes, strict=True)
        for may, a, b in zip(free, wanted, given, strict=True)
    )
    if not fixed:
        wanted = " ".join(",".join(map(str, s)) for s in own)
        raise InputError(f"this network was exported for `inputs` {wanted}; export it anew")


def _input(x: Tensor) -> Tensor:
    dtype = str(x.dtype).removeprefix("torch.")
    if not x.is_floating_point() and dtype not in ir.INTEGERS:
        raise InputError(
            f"`inputs` holds {dtype}; networks read floats here, {', '.join(ir.INTEGERS)}: "
            "give inputs scaled and normalised as the network reads them"
        )
    if x.is_meta or x.is_sparse:
        raise InputError("`inputs` holds a sparse tensor, or one on device meta; give numbers")
    if x.ndim < 1 or not x.numel():
        shape = "×".join(map(str, x.shape)) or "a single number"
        raise InputError(f"`inputs` holds a tensor of {shape}; give (N, …) with N of 1 or more")
    kind = torch.float32 if x.is_floating_point() else x.dtype
    x = x.detach().to("cpu", kind, copy=True)  # a network may change what it reads
    if not bool(x.isfinite().all()):
        raise InputError("`inputs` holds NaN or infinity; give finite inputs")
    return x


def _shapes(inputs: Any) -> tuple[tuple[int, ...], ...]:
    """Of tensors, one shape, or several."""
    if isinstance(inputs, Tensor):
        return (tuple(inputs.shape),)
    refused = InputError(
        f"`inputs` is a {type(inputs).__name__}; give a tensor, tensors in forward's order, or "
        "shapes such as (1, 3, 224, 224)"
    )
    if isinstance(inputs, WholeShape):
        inputs = [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, str) or not inputs:
        raise refused
    given = cast(Sequence[Any], inputs)
    if all(type(n) is int for n in given):
        given = [given]
    shapes: list[tuple[int, ...]] = []
    for one in given:
        if isinstance(one, Tensor):
            shapes.append(tuple(one.shape))
            continue
        one = one.shape if isinstance(one, WholeShape) else one
        if not isinstance(one, Sequence) or isinstance(one, str):
            raise refused
        shape = tuple(cast(Sequence[Any], one))
        if not shape or not all(type(n) is int and 0 < n <= 1 << 20 for n in shape):
            raise InputError(f"`inputs` {shape}: give positive integers such as (1, 3, 224, 224)")
        if math.prod(shape) > MOST_NUMBERS:
            raise InputError(f"`inputs` {shape}: more than {MOST_NUMBERS:,} numbers; give less")
        shapes.append(shape)
    return tuple(shapes)


def random_inputs(shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Seeded normal float32 tensors."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _labelled(source: ImageSource, name: str, task: Task, known: tuple[Answer, int]) -> ImageSource:
    """By the network's outputs, of which some are `known`, for so many samples. Class folders are
    no labels of a task that reads others. Raises InputError for labels that are not the task's."""
    answer, samples = known
    if source.kind == "classes" and task.reads not in (None, "classes"):
        if not source.in_memory:
            return source.without_labels()
        source = source.as_numbers() if task.reads == "numbers" else source
    if source.kind != "numbers":
        source = _numbered(source, name, task, answer)
    if task.reads not in (None, source.kind):
        raise InputError(
            f"`{name}` comes with {source.kind} as labels; {task.name} reads {task.reads}",
            "give such labels, leave them out, or give the `task` that they are for",
        )
    examples = source.examples(EXAMPLES)
    if examples is not None and examples[1] is not None:
        few = min(samples, len(examples[1]))
        if all(len(one) == samples for one in answer):
            task.check_labels(tuple(one[:few] for one in answer), examples[1][:few], name)
    return source


def _numbered(source: ImageSource, name: str, task: Task, answer: Answer) -> ImageSource:
    """With labels and names of classes by the outputs, where those are classes. Raises
    InputError."""
    if source.named and task.reads == "numbers":
        raise InputError(f"`classes`: outputs of {task.name} are no classes; leave it out")
    classes = task.classes(answer) if task.judges(answer) else None
    return source if classes is None else source.numbering(classes, name)


def _fits(answer: Answer, source: ImageSource) -> bool:
    """Whether the images' labels could be those of outputs (n, classes)."""
    if not has_scores(answer[0]):
        return False
    try:
        source.numbering(answer[0].shape[1], "images")
    except InputError:
        return False
    return True


def _counts(x: Tensor) -> bool:
    """Whether it holds whole numbers, and not truth."""
    return not x.is_floating_point() and x.dtype != torch.bool


def require_layers(graph_module: fx.GraphModule) -> None:
    """Raise InputError for a network that has nothing to make smaller or faster."""
    layers = any(isinstance(m, LAYERS) for m in graph_module.modules())
    products = (ir.dynamic_conv, torch.matmul)
    if not layers and not any(n.target in products for n in graph_module.graph.nodes):
        raise InputError("the model has no convolution, linear or recurrent layer")
