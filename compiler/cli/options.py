"""Every option, once: the same flag has the same type, meaning and help in every command.

A parameter has the name that the library gives it, so that the library's messages lead to its flag.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from shrinkc.compiler.cli.completion import devices, targets, tasks
from shrinkc.compiler.support.choices import (
    Allocated,
    BlockSearch,
    CriterionName,
    DepthMethod,
    Importance,
    Int8Tuning,
    Io,
    MeasuredPrecision,
    Merge,
    Normalise,
    Per,
    Precision,
    Scratch,
    SearchName,
    TaskName,
)

MODEL, GOAL, METHOD, WIDTHS, SEARCH = "Model", "Goal", "Method", "Widths", "Search"
IMAGES, TRAINING, INT8, OUTPUT, MEASURING = "Images", "Training", "int8", "Output", "Measuring"
FINE_TUNING, WORKERS = "Fine-tuning", "Workers"
PANELS = (
    MODEL,
    GOAL,
    METHOD,
    WIDTHS,
    SEARCH,
    IMAGES,
    TRAINING,
    FINE_TUNING,
    WORKERS,
    INT8,
    OUTPUT,
    MEASURING,
)  # in order of showing


def _either(choices: object) -> str:
    """'a, b or c'"""
    *most, last = get_args(choices)
    return f"{', '.join(most)} or {last}" if most else last


# --- model ---------------------------------------------------------------------------------------

ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A .pt module or state dict, a .onnx or .safetensors file."
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="N,C,H,W",
        help="Shape of an input; once per input. Whole numbers: 1,128:int64 (int32, bool). "
        "Default: 1,C,224,224.",
        rich_help_panel=MODEL,
    ),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FACTORY",
        help="Function that builds the network of a state dict, as package.module:factory; its "
        "arguments may follow: 'nets:small(classes=10)'.",
        rich_help_panel=MODEL,
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load files that can run code. Only for files you made.",
        rich_help_panel=MODEL,
    ),
]

TaskOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"What the outputs mean: {_either(TaskName)}; fields follow, as in "
        "detect:layout=yolov5 (docs/tasks.md). Default: told by the outputs, and by labels.",
        rich_help_panel=MODEL,
        autocompletion=tasks,
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Metric in place of the task's: a function of outputs and labels, higher is better.",
        rich_help_panel=MODEL,
    ),
]
OutputWeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Weights of the outputs where they are compared, such as 1,0.5. Default: all alike.",
        rich_help_panel=MODEL,
    ),
]

# --- goal ----------------------------------------------------------------------------------------

_TARGET = typer.Option(
    "--target",
    help="Latency table: one that shrinkc tables lists, a table's folder, or host.",
    rich_help_panel=GOAL,
    autocompletion=targets,
)
TargetOption = Annotated[str, _TARGET]
TargetsOption = Annotated[
    str,
    typer.Option(
        "--target",
        help="Latency table: one that shrinkc tables lists, a table's folder, or host; several "
        "with commas, a folder for each.",
        rich_help_panel=GOAL,
        autocompletion=targets,
    ),
]
OptionalTargetOption = Annotated[str | None, _TARGET]
SpeedupOption = Annotated[
    float | None,
    typer.Option(
        metavar="TIMES",
        help="So many times as fast as the original in fp32, by the target's table.",
        rich_help_panel=GOAL,
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(help="At most so many milliseconds on the target.", rich_help_panel=GOAL),
]
MaxDropOption = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="The fastest network that loses at most so many points of the task's metric.",
        rich_help_panel=GOAL,
    ),
]
ConfidentOption = Annotated[
    bool,
    typer.Option(
        "--confident",
        help="--max-drop holds with 95% confidence, not on the judged images alone.",
        rich_help_panel=GOAL,
    ),
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="For outputs that are no classes: the fastest network whose squared error is at most "
        "this share of any output's variance.",
        rich_help_panel=GOAL,
    ),
]
ParetoOption = Annotated[
    int | None,
    typer.Option(
        "--pareto",
        metavar="COUNT",
        help="So many networks, from the most accurate to the fastest.",
        rich_help_panel=GOAL,
    ),
]
WorstCaseOption = Annotated[
    bool,
    typer.Option(
        "--worst-case",
        help="One network that keeps to the goal on every target, instead of one for each.",
        rich_help_panel=GOAL,
    ),
]
ResolutionsOption = Annotated[
    str | None,
    typer.Option(
        "--resolutions",
        metavar="NUMBERS",
        help="Sizes of smaller images that a plan may choose, such as 192,160.",
        rich_help_panel=GOAL,
    ),
]
MacsOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Keep this share of the multiply-accumulates, 0 to 1.",
        rich_help_panel=GOAL,
    ),
]
ParamsOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="Keep this share of the parameters, 0 to 1.", rich_help_panel=GOAL
    ),
]
ChannelsOption = Annotated[
    float | None,
    typer.Option(
        "--keep-ratio",
        metavar="SHARE",
        help="Keep this share of the channels, 0 to 1.",
        rich_help_panel=GOAL,
    ),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GROUP=SHARE",
        help="Keep this share of one group's channels; several times. shrinkc inspect lists them.",
        rich_help_panel=GOAL,
    ),
]
BlocksOption = Annotated[
    int | None,
    typer.Option(
        "--keep-blocks",
        metavar="COUNT",
        help="depthshrinker: so many blocks keep their activations.",
        rich_help_panel=GOAL,
    ),
]
BlockShareOption = Annotated[
    float | None,
    typer.Option(
        "--keep-block-ratio",
        metavar="SHARE",
        help="depthshrinker: this share of the blocks keeps its activations, 0 to 1.",
        rich_help_panel=GOAL,
    ),
]

# --- method --------------------------------------------------------------------------------------

MergeOption = Annotated[
    Merge,
    typer.Option(
        help="Merge linear segments: where the table says that it pays, all, or none.",
        rich_help_panel=METHOD,
    ),
]
DepthMethodOption = Annotated[
    DepthMethod,
    typer.Option(
        metavar="NAME",
        help=f"{_either(DepthMethod)}: closed-form and practise need no labels, the others learn "
        "from them; expand trains for accuracy at equal speed.",
        rich_help_panel=METHOD,
    ),
]
PerActivationOption = Annotated[
    bool,
    typer.Option(
        "--per-activation",
        help="depthshrinker: a mask for each activation.",
        rich_help_panel=METHOD,
    ),
]
ImportanceOption = Annotated[
    Importance | None,
    typer.Option(
        metavar="NAME",
        help="two-stage-dp, layermerge, layer-pruning: how what an option does is judged, by "
        "accuracy or by loss. Default: accuracy for two-stage-dp, as published, otherwise loss.",
        rich_help_panel=METHOD,
    ),
]
AlphaOption = Annotated[
    float,
    typer.Option(
        help="two-stage-dp: above 1 long intervals are preferred; the authors take 1.2 to 1.6.",
        rich_help_panel=METHOD,
    ),
]
BlockSearchOption = Annotated[
    BlockSearch,
    typer.Option(
        metavar="NAME",
        help="depthshrinker: which blocks give up their activations, as it is learned, or as a "
        "baseline random (by --seed) or uniform ones.",
        rich_help_panel=METHOD,
    ),
]
AnnealOption = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Share of the fine-tuning in which activations become the identity little by little, "
        "instead of at once.",
        rich_help_panel=TRAINING,
    ),
]
PublishedOption = Annotated[
    bool,
    typer.Option(
        "--published",
        help="The authors' schedule. depthshrinker: 180 epochs of search and 180 of fine-tuning in "
        "batches of 256 at a learning rate of 0.1; layer-folding: 100 and 100, 128, 0.001.",
        rich_help_panel=TRAINING,
    ),
]
ExpandRatioOption = Annotated[
    float,
    typer.Option(
        help="expand: hidden channels of a block over its inputs.", rich_help_panel=METHOD
    ),
]
CriterionOption = Annotated[
    CriterionName,
    typer.Option(
        metavar="NAME",
        help=f"How channels are scored: {_either(CriterionName)}. hrank, dropnet, cap and he look "
        "at --images, group-fisher at labels too; mseb learns from labels.",
        rich_help_panel=METHOD,
    ),
]
WidthSearchOption = Annotated[
    SearchName | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help=f"Search widths: {_either(SearchName)}. A quarter of --images judges the networks, "
        "the criterion says which channels stay. Default: --allocation by scores.",
        rich_help_panel=SEARCH,
    ),
]
EvaluationsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="COUNT",
        help="--method: networks that are judged, at most. Default: as many as published.",
        rich_help_panel=SEARCH,
    ),
]
RatesOption = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE,VALUE",
        help="cacp: other values of the goal that one search is for as well, such as 0.3,0.7 with "
        "--macs. What is found for each lies beside --out: OUT-0.3.",
        rich_help_panel=SEARCH,
    ),
]
AllocationOption = Annotated[
    Allocated | None,
    typer.Option(
        metavar="NAME",
        help="How the budget is spread: knapsack (least importance for the cost), global (one "
        "threshold), uniform, search (CaP's, step by step) or sensitivity (each group as far as "
        "--images allow). Default: as published, else knapsack; uniform for --keep-ratio.",
        rich_help_panel=WIDTHS,
    ),
]
NormaliseOption = Annotated[
    Normalise | None,
    typer.Option(
        metavar="NAME",
        help=f"How scores of different groups compare: {_either(Normalise)} (each group is pruned "
        "alone and judged on --images). Default: as the criterion needs.",
        rich_help_panel=WIDTHS,
    ),
]
MultipleOption = Annotated[
    int | None,
    typer.Option(
        help="Widths are multiples of this number. Default: the target's, halved while every layer "
        "is too narrow for it.",
        rich_help_panel=WIDTHS,
    ),
]
FloorOption = Annotated[
    float,
    typer.Option(
        metavar="SHARE", help="Share of each group that stays at least.", rich_help_panel=WIDTHS
    ),
]
CandidatesOption = Annotated[
    int | None,
    typer.Option(
        help="Widths of a group that are priced, at most. Default: 16; 64 where no time is "
        "asked for.",
        rich_help_panel=WIDTHS,
    ),
]
SearchStepOption = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="--allocation search: share of a group's channels that goes in one step, at most.",
        rich_help_panel=WIDTHS,
    ),
]
CompensateOption = Annotated[
    bool | None,
    typer.Option(
        "--compensate/--no-compensate",
        help="Fit what is left to what the network computed, by least squares. Default: with "
        "--images, where nothing is trained.",
        rich_help_panel=METHOD,
    ),
]
InOrderOption = Annotated[
    bool,
    typer.Option(
        "--in-order",
        help="Decide layer after layer which channels stay, in the network that the layers before "
        "leave, compensated, as published for he and cap. How many stay is decided as ever.",
        rich_help_panel=METHOD,
    ),
]
WidthsOption = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="COUNT",
        help="Widths of each layer that are measured, from all channels to a quarter.",
        rich_help_panel=METHOD,
    ),
]

# --- images --------------------------------------------------------------------------------------

ImagesOption = Annotated[
    Path | None,
    typer.Option(
        help="Images to work with: a folder, class folders, a tar of them, or an .npy or .npz.",
        rich_help_panel=IMAGES,
    ),
]
LabelsOption = Annotated[
    bool,
    typer.Option(
        "--labels", help="The folders of --images are classes: use them.", rich_help_panel=IMAGES
    ),
]
LimitOption = Annotated[
    int,
    typer.Option(
        min=1, metavar="COUNT", help="Use at most so many of --images.", rich_help_panel=IMAGES
    ),
]
EvaluationOption = Annotated[
    Path | None,
    typer.Option(
        help="Other images, to judge the result on, by their labels where they have any.",
        rich_help_panel=IMAGES,
    ),
]
ClassesOption = Annotated[
    Path | None,
    typer.Option(
        help="The classes in the outputs' order: a .txt, one a line, or JSON, class → index. "
        "Numbers class folders, and names the classes in files. Default: the folders, sorted, "
        "where there is one for every class, or their names where they are numbers.",
        rich_help_panel=IMAGES,
    ),
]
ResizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Pixels of the shorter side before the crop, or letterbox (all of an image, grey "
        "around) or stretch. Default: by the input's size; letterbox for boxes.",
        rich_help_panel=IMAGES,
    ),
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        help="Labels beside the images: COCO's .json, or a folder of YOLO's .txt, of masks, of "
        ".npy. Default: a folder labels beside images.",
        rich_help_panel=IMAGES,
    ),
]
BgrOption = Annotated[
    bool,
    typer.Option("--bgr", help="The network reads BGR, not RGB.", rich_help_panel=IMAGES),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        help="Pixels are 0 to this number before --mean, which is 0 then: 255 for raw ones. "
        "Default: 1.",
        rich_help_panel=IMAGES,
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Mean of each channel, after scaling to 0–1, such as 0.5,0.5,0.5.",
        rich_help_panel=IMAGES,
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Standard deviation of each channel, as --mean.",
        rich_help_panel=IMAGES,
    ),
]

# --- training ------------------------------------------------------------------------------------

CacheGbOption = Annotated[
    float | None,
    typer.Option(
        "--cache-gb",
        metavar="GB",
        help="Decoded images kept on the disk, at most; larger sets are decoded whenever they are "
        "read. Default: half of what is free.",
        rich_help_panel=IMAGES,
    ),
]
TrainOption = Annotated[
    Path | None,
    typer.Option(help="Images to train on, a folder for every class.", rich_help_panel=TRAINING),
]
LossOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Loss in place of cross-entropy: a function of the network and a batch of inputs and "
        "labels.",
        rich_help_panel=TRAINING,
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="COUNT", help="Epochs of training. Default: 10.", rich_help_panel=TRAINING
    ),
]
SearchEpochsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="COUNT",
        help="Epochs of depthshrinker's search, or in which layer-folding learns what goes. "
        "Default: as --epochs.",
        rich_help_panel=TRAINING,
    ),
]
TrialStepsOption = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="COUNT",
        help="Steps of training before the DP methods judge an option.",
        rich_help_panel=TRAINING,
    ),
]
ChainRatioOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        metavar="RATIO",
        help="Over-parameterised fine-tuning: linear chains beside what was pruned or merged, "
        "RATIO hidden channels per input, which are merged back exactly. Default: none.",
        show_default=False,
        rich_help_panel=FINE_TUNING,
    ),
]
RoundsOption = Annotated[
    int,
    typer.Option(
        help="Rounds of pruning a little and training a little.", rich_help_panel=TRAINING
    ),
]
RoundEpochsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="COUNT",
        help="Epochs of training between rounds, with a penalty, or of each network of abc. "
        "Default: 1. Of dmcp's search 40, of meta's 64; of mseb's scores as many as --epochs.",
        rich_help_panel=TRAINING,
    ),
]
EveryOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="STEPS",
        help="group-fisher with --train: a channel goes every so many steps of --round-epochs of "
        "training, as published (25).",
        rich_help_panel=TRAINING,
    ),
]
PerOption = Annotated[
    Per | None,
    typer.Option(
        metavar="NAME",
        help="group-fisher: what a channel's information is divided by, its memory, its flops or "
        "what it takes of the budget. Default: memory with --every, as published; without, what "
        "the allocation counts.",
        rich_help_panel=METHOD,
    ),
]
OneByOneOption = Annotated[
    bool,
    typer.Option(
        "--one-by-one",
        help="Prune one group after the other, each scored in the network so far, with "
        "--round-epochs behind each, as published for hrank.",
        rich_help_panel=METHOD,
    ),
]
InitialOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The network before it was trained: what is left of it is where every training "
        "starts, as published for dropnet.",
        rich_help_panel=FINE_TUNING,
    ),
]
FromScratchOption = Annotated[
    Scratch | None,
    typer.Option(
        metavar="E|B",
        help="Train what is left as if it were new, by labels alone, to compare with: E as long as "
        "--epochs, B as many times longer as it computes less, but twice at most. Starts from "
        "fresh weights, or from --initial.",
        rich_help_panel=FINE_TUNING,
    ),
]
DropBelowOption = Annotated[
    float | None,
    typer.Option(
        metavar="WEIGHT",
        help="ssl: the penalty is on whole residual branches too; those go whose last layer's root "
        "mean square weight it has brought down to this.",
        rich_help_panel=TRAINING,
    ),
]
StrengthOption = Annotated[
    float | None,
    typer.Option(
        help="slimming, ssl, group-sl: weight of the penalty. Default: the authors', 1e-4, for "
        "slimming 1e-5 where there are shortcuts, for group-sl 5e-4.",
        rich_help_panel=TRAINING,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="COUNT",
        help="Where nothing is trained: steps of distillation on --images, without labels; by "
        "default 200 to 4,000, as the network's work allows. practise: of each training, 2,000.",
        rich_help_panel=TRAINING,
    ),
]
BatchOption = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="COUNT",
        help="Images per training step; at most a tenth of all.",
        rich_help_panel=TRAINING,
    ),
]
RateOption = Annotated[
    float, typer.Option(help="Peak learning rate (SGD).", rich_help_panel=TRAINING)
]
SeedOption = Annotated[
    int, typer.Option(help="Seed of training and of random scores.", rich_help_panel=TRAINING)
]
JobsOption = Annotated[
    str | None,
    typer.Option(
        "--jobs",
        metavar="COUNT|ray",
        help="What is measured or tried side by side, such as what every choice costs: a number "
        "of processes that share the cores, or ray for a cluster. Default: 1.",
        rich_help_panel=WORKERS,
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The cluster's HOST:PORT, or local for a new one here; --jobs ray goes without "
        "saying. Default: RAY_ADDRESS, or the one that was started here, or a new one.",
        rich_help_panel=WORKERS,
    ),
]

# --- int8 ----------------------------------------------------------------------------------------

PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help="Precision of the network. Default: fp32; with a goal, compile takes the better one.",
        rich_help_panel=INT8,
    ),
]
MeasuredPrecisionOption = Annotated[
    MeasuredPrecision | None,
    typer.Option(
        "--precision",
        help="Precision that is measured; fp16 on cuda alone. Default: fp32; calibrate measures "
        "all that table and device have.",
        rich_help_panel=MEASURING,
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        help="Images to calibrate on. Default: half of --images, not judged then.",
        rich_help_panel=INT8,
    ),
]
Int8TuningOption = Annotated[
    Int8Tuning | None,
    typer.Option(
        help="What is done first: biases corrected on the calibration images, ranges of channels "
        "equalised, both, none. Default: bias.",
        rich_help_panel=INT8,
    ),
]
IoOption = Annotated[
    Io,
    typer.Option(
        "--io",
        help="What int8 files read and return: floats, or int8 or uint8 as report.json says.",
        rich_help_panel=INT8,
    ),
]
FoldNormalisationOption = Annotated[
    bool,
    typer.Option(
        "--fold-normalisation",
        help="Files read raw RGB, 0 to 255; --mean, --std, --scale and --bgr are in them.",
        rich_help_panel=OUTPUT,
    ),
]
KeepFp32Option = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER", help="Leave this layer in fp32; several times.", rich_help_panel=INT8
    ),
]
MinSnrOption = Annotated[
    float | None,
    typer.Option(
        "--min-snr",
        metavar="DB",
        help="Leave layers in fp32 whose signal to noise is below so many decibels.",
        rich_help_panel=INT8,
    ),
]

# --- output --------------------------------------------------------------------------------------

OutOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="Folder to write. Default: named after model and target.",
        rich_help_panel=OUTPUT,
    ),
]
OpsetOption = Annotated[int, typer.Option(help="Opset of the ONNX file.", rich_help_panel=OUTPUT)]
PlotOption = Annotated[
    Path | None, typer.Option(help="PNG file to draw a plot into.", rich_help_panel=OUTPUT)
]
NameOption = Annotated[
    str | None,
    typer.Option(
        help="Target to save the table as. Default: TARGET, which it then means.",
        rich_help_panel=OUTPUT,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object, on failure too.", rich_help_panel=OUTPUT),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Show no progress and no report; errors stay.", rich_help_panel=OUTPUT
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Use and keep nothing in the cache (see shrinkc cache).",
        rich_help_panel=OUTPUT,
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Append progress and report to this file, with the time.",
        rich_help_panel=OUTPUT,
    ),
]

# --- measuring -----------------------------------------------------------------------------------

ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="COUNT",
        help="Threads of every measurement. Default: 1; for calibrate, the table's.",
        rich_help_panel=MEASURING,
    ),
]
RunsOption = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="COUNT",
        help="Timed runs of each file; 0 times nothing.",
        rich_help_panel=MEASURING,
    ),
]
_ON = typer.Option(
    "--on",
    metavar="DEVICE",
    help=r"host, ssh://user@host\[:port] (the path of its Python may follow), adb:SERIAL, or "
    "cuda. bench: host by default; profile measures several side by side.",
    rich_help_panel=MEASURING,
    autocompletion=devices,
)
OnOption = Annotated[str, _ON]
OptionalOnOption = Annotated[str | None, _ON]
DevicesOption = Annotated[list[str] | None, _ON]
FleetOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A TOML file of boards, measured side by side, in place of --on (docs/devices.md).",
        rich_help_panel=MEASURING,
    ),
]
NewTargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="Name of the table to make; once, or once for every --on; a fleet's file says it.",
        rich_help_panel=OUTPUT,
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        help="tflite or onnxruntime; on cuda pytorch or tensorrt. Default: the device's first.",
        rich_help_panel=MEASURING,
    ),
]
CompareOption = Annotated[
    Path | None,
    typer.Option(help="Another file, timed in turn with FILE.", rich_help_panel=MEASURING),
]
BudgetMinutesOption = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="MINUTES",
        help="Minutes for each device; `profile` goes on with what is left over later.",
        rich_help_panel=MEASURING,
    ),
]
BenchmarkModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="TFLite's benchmark_model, for adb: a file here or a path on the phone. Default: "
        "Python in Termux.",
        rich_help_panel=MEASURING,
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=1,
        metavar="SECONDS",
        help="A device that says nothing for so long counts as hung.",
        rich_help_panel=MEASURING,
    ),
]
