"""What was asked of pruning, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shrinkc.compiler.api.steps.request import Request
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.options import Options
from shrinkc.compiler.recover.recipe import TRAINING
from shrinkc.compiler.support.checks import check_number, check_whole
from shrinkc.compiler.support.choices import Per
from shrinkc.compiler.support.jobs import require_workers
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.compiler.train.compute import require_training
from shrinkc.compiler.train.settings.own_loss import Loss
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.methods import (
    CRITERIA,
    as_published,
    cumulative,
    readers_of,
)
from shrinkc.compiler.width.prune import (
    Pruning,
    check_goal,
    kind_of,
)
from shrinkc.compiler.width.search.methods import SEARCHES, Search, method_of
from shrinkc.errors import InputError
from shrinkc.passes.criteria.spec import CriterionSpec

TRAINING_SEARCHES = ", ".join(method.name for method in SEARCHES if method.trains or method.learns)
SIDE_BY_SIDE = ", ".join(method.name for method in SEARCHES if method.side_by_side)
LIMIT = 500  # by default


@dataclass(frozen=True, eq=False)
class Told:
    """Arguments of `prune` that are handed on as they are."""

    compensate: bool | None
    steps: int | None
    strength: float | None
    drop_below: float | None
    every: int | None
    per: Per | None
    in_order: bool
    labels: bool
    limit: int


@dataclass(frozen=True, eq=False)
class Asked(Told):
    """The arguments that say how to prune.

    trains   whether anything is trained; `teaches`: on `images`
    images   whether there are any
    search   how widths are searched for; None: they are allocated by scores
    """

    spec: CriterionSpec
    goal: Goal | None
    options: Pruning
    trains: bool
    images: bool
    teaches: bool
    search: Search | None = None

    @classmethod
    def of(
        cls,
        spec: CriterionSpec,
        goal: Goal | None,
        options: Pruning,
        told: Told,
        images: bool,
        train: bool,
        epochs: int | None,
        search: Search | None = None,
    ) -> Asked:
        """`images`, `train`: whether there are any. Raises InputError for what can be known to fail
        before anything is loaded."""
        if epochs is not None:
            options = replace(options, recipe=replace(options.recipe, epochs=epochs))
        teaches = told.labels and epochs is not None and not train
        asked = cls(
            **vars(told),
            spec=spec,
            goal=goal,
            options=options,
            trains=train or teaches,
            images=images,
            teaches=teaches,
            search=search,
        )
        asked.check(epochs is not None)
        return asked

    def with_loss(self, request: Request, loss: Loss | None) -> Asked:
        """Raises InputError for a loss where nothing is trained."""
        readers = "a training: give `train`, or `epochs` and `labels`"
        refuse_unread(("loss", loss is not None, self.trains, readers))
        recipe = request.with_loss(self.options.recipe, loss)
        return replace(self, options=replace(self.options, recipe=recipe))

    @property
    def allocation(self) -> Allocation:
        """As asked for; else as published. What is divided by memory or FLOPs compares as it is."""
        options = self.options.allocation
        divided = self.per in ("memory", "flops") and self.every is None
        if divided and options.kind is None and options.normalise is None:
            options = replace(options, kind="global")
        return as_published(options, self.spec)

    @property
    def particular(self) -> str:
        """What single criteria read: runs that differ in it share nothing in a folder."""
        return f"{self.per} {self.strength} {self.drop_below}"

    @property
    def compensates(self) -> bool:
        """As asked for; else wherever there are images and nothing is trained, and before a
        training as the criterion is published."""
        if self.compensate is None:
            return self.images and (self.spec.compensates or self.in_order or not self.trains)
        return self.compensate

    @property
    def measures(self) -> bool:
        return self.options.allocation.normalise == "measured"

    @property
    def looks(self) -> bool:
        """Whether images are looked at before anything is trained."""
        looked = self.measures or self.allocation.kind in ("search", "sensitivity")
        return self.spec.needs != "nothing" or self.compensates or looked or self.searches

    @property
    def searches(self) -> bool:
        return self.search is not None

    @property
    def widths_searched(self) -> bool:
        """Otherwise they are allocated, or given one by one."""
        return self.search is not None and self.search.of_widths

    @property
    def side_by_side(self) -> bool:
        """Whether several candidates are judged at once."""
        return self.search is not None and method_of(self.search.method).side_by_side

    @property
    def learner(self) -> str | None:
        """What learns from labels, in words, besides the network that is left."""
        if self.search is not None and method_of(self.search.method).learns:
            return f"`method` {self.search.method}"
        return f"`criterion` {self.spec.name}" if self.spec.learns else None

    @property
    def score_epochs(self) -> int:
        """Of the training in which a criterion learns its scores: as many as what is left has, as
        published, unless others were asked for."""
        recipe = self.options.recipe
        return recipe.search_epochs or recipe.epochs

    @property
    def trains_to_search(self) -> bool:
        """Whether a search trains: each candidate before it is judged, or widths themselves."""
        if self.search is None:
            return False
        method, epochs = method_of(self.search.method), self.options.recipe.search_epochs
        return method.learns or (method.trains and epochs is not None)

    def check(self, epochs: bool) -> None:
        """What can be known to fail before anything is loaded. Raises InputError."""
        images = self.images
        check_goal(self.goal, self.options.keep)
        self._check_numbers()
        if self.labels and not images:
            raise InputError(
                "`labels` says that the folders of `images` are classes", "give `images`"
            )
        if self.spec.needs != "nothing" and not images:
            without = ", ".join(c.name for c in CRITERIA if c.needs == "nothing" and not c.learns)
            raise InputError(
                f"`criterion` {self.spec.name} looks at images",
                f"give `images`, or a criterion that needs none: {without}",
            )
        if self.compensate and not images:
            raise InputError("`compensate` looks at images", "give `images`; no labels are needed")
        if self.in_order and not images:
            raise InputError("`in_order` looks at images", "give `images`; no labels are needed")
        if self.in_order and self.compensate is False:
            raise InputError("`in_order` compensates every layer", "leave out `compensate`")
        if self.in_order and self.every is not None:
            raise InputError("`in_order` decides at once, `every` during a training", "give one")
        if self.options.one_by_one and (self.in_order or self.options.rounds > 1):
            raise InputError("`one_by_one` is an order of its own", "leave out the other")
        if self.options.one_by_one and self.options.initial is not None:
            raise InputError("`initial` resets rounds, `one_by_one` has none", "give one")
        if self.measures and not images:
            raise InputError("`normalise` measured looks at images", "give `images`")
        kind = self.allocation.kind
        if kind in ("search", "sensitivity") and not images:
            raise InputError(f"`allocation` {kind} looks at images", "give `images`")
        for name, given in (("in_order", self.in_order), ("one_by_one", self.options.one_by_one)):
            if kind == "search" and given:
                raise InputError(
                    f"`{name}` and `allocation` search both say what stays", "give one"
                )
        if self.search is not None:
            self._check_search(self.search)
        if self.steps and (self.trains or not self.compensates):
            raise InputError("`steps` of distillation follow `compensate` where nothing is trained")
        self._check_learned()
        if self.every is not None and not (self.spec.scheduled and self.trains):
            some = ", ".join(c.name for c in CRITERIA if c.scheduled)
            raise InputError(f"`every` belongs to `criterion` {some} with `train`, or `epochs`")
        if epochs and not self.trains:
            raise InputError("`epochs` of what?", "give `train`, or `images` and `labels`")
        self._refuse_unread()
        self._refuse_untrained()
        if self.trains:
            require_training()
        require_workers(self.options.recipe.parallel)

    def _check_learned(self) -> None:
        """Raises InputError for what a criterion cannot do that learns all scores at once."""
        if not self.spec.learns:
            return
        criterion = f"`criterion` {self.spec.name}"
        if not self.trains:
            raise InputError(
                f"{criterion} learns its scores from labels",
                "give `train`, or `images` with `labels` and `epochs`",
            )
        for name, given in (
            ("`in_order`", self.in_order),
            ("`one_by_one`", self.options.one_by_one),
            ("`allocation` search", self.allocation.kind == "search"),
        ):
            if given:
                raise InputError(
                    f"{criterion} would be trained anew for every step of {name}", "leave it out"
                )

    def _check_search(self, search: Search) -> None:
        """Raises InputError."""
        method = f"`method` {search.method}"
        if self.goal is None and search.of_widths:
            raise InputError(f"{method} searches widths for a goal", "give one instead of `keep`")
        if not self.images:
            raise InputError(
                f"{method} judges candidates on images",
                "give `images` of the training set, with `labels` where there are any",
            )
        if self.goal is not None:
            for rate in search.rates:
                Goal(self.goal.kind, rate)
        if self.every is not None:
            raise InputError(f"{method} chooses channels, and so does `every`", "give one")
        for name, given in (
            ("`in_order`", self.in_order),
            ("`one_by_one`", self.options.one_by_one),
            ("`allocation` search", self.allocation.kind == "search"),
        ):
            if given and not search.of_widths:
                raise InputError(f"{method} chooses channels, and so does {name}", "give one")
        if self.trains_to_search and (not self.trains or self.teaches):
            learns = method_of(search.method).learns
            how = "learns from `train`, with labels" if learns else "trains candidates on `train`"
            raise InputError(
                f"{method} {how}, and judges them on other `images`",
                "give both" + ("" if learns else ", or leave out `round_epochs`"),
            )

    def _refuse_unread(self) -> None:
        """Raises InputError."""
        spec, widths, recipe, trains = (
            self.spec,
            self.options.allocation,
            self.options.recipe,
            self.trains,
        )
        kind = "" if self.goal is None else kind_of(self.allocation, self.goal)
        searches = self.searches
        # a schedule and a search spread it themselves
        spread = kind if self.every is None and not self.widths_searched else ""
        once, goal = self._allocated("what removes channels at once, for a goal"), "a goal"
        refuse_unread(
            ("allocation", widths.kind is not None, spread != "", once),
            ("normalise", widths.normalise is not None, spread != "", once),
            (
                *("normalise", widths.normalise is not None, spread in ("knapsack", "global")),
                "`allocation` knapsack and global",
            ),
            (
                "normalise",
                self.measures,
                spread == "knapsack",
                "`allocation` knapsack, where measured",
            ),
            (
                *("normalise", widths.normalise == "cumulative", spec.normalise == "cumulative"),
                f"{cumulative()}, where cumulative",
            ),
            (
                "search_step",
                widths.search_step != Allocation().search_step,
                spread == "search",
                "`allocation` search",
            ),
            ("candidates", widths.candidates is not None, spread != "" or searches, once),
            ("floor", widths.floor != Allocation().floor, kind != "", goal),
            ("per", self.per is not None, "per" in spec.reads, readers_of("per")),
            (
                "seed",
                recipe.seed != 0,
                trains or searches or "seed" in spec.reads,
                f"a training, and {readers_of('seed')}, and `method`",
            ),
            ("parallel", recipe.parallel != 1, self.side_by_side, f"`method` {SIDE_BY_SIDE}"),
            *recipe.unread(
                (*(TRAINING if trains else ("seed",)), "search_epochs", "parallel"),
                "other methods" if trains else "a training: give `train`, or `epochs` and `labels`",
            ),
            (
                "limit",
                self.limit != LIMIT,
                self.looks,
                "what criteria and compensation see of `images`",
            ),
            (
                *("labels", self.labels, "labels" in spec.reads or self.teaches or searches),
                f"{readers_of('labels')}, `method`, and for `epochs` of training on `images`",
            ),
        )

    def _refuse_untrained(self) -> None:
        """Raises InputError for what only a training reads."""
        options, trains = self.options, self.trains
        goal = self.goal is not None and self.every is None
        penalty = "strength" in self.spec.reads
        by_training = self.trains_to_search
        turns = options.rounds > 1 or options.one_by_one
        in_turn = "pruning and training in turn: give `train`, and a goal"
        refuse_unread(
            ("initial", options.initial is not None, trains, "a training: give `train`"),
            (
                *("from_scratch", options.from_scratch is not None, trains),
                "a training: give `train`, or `epochs`, `images` and `labels`",
            ),
            (
                *("compensate", self.compensate is True),
                options.from_scratch is None or turns or self.searches,
                "what is trained further, and `from_scratch` starts anew",
            ),
            (
                *("chain_ratio", options.recipe.chain_ratio > 0, options.from_scratch is None),
                "what is fine-tuned, and `from_scratch` trains the pruned shape itself",
            ),
            ("one_by_one", options.one_by_one, trains and goal, in_turn),
            (
                *("rounds", options.rounds > 1, trains and goal and not self.widths_searched),
                self._allocated(in_turn),
            ),
            (
                *("round_epochs", options.recipe.search_epochs is not None),
                trains
                and (turns or penalty or self.every is not None or by_training or self.spec.learns),
                f"`rounds`, `one_by_one`, `every`, `method` {TRAINING_SEARCHES}, and criteria that "
                "train first: with a penalty, or for their scores",
            ),
            (
                *("strength", self.strength is not None, penalty and trains),
                f"{readers_of('strength')}, with `train`, or `epochs` and `labels`",
            ),
            (
                *("drop_below", self.drop_below is not None),
                "drop_below" in self.spec.reads and trains,
                f"{readers_of('drop_below')}, with `train`, or `epochs` and `labels`",
            ),
        )

    def _allocated(self, readers: str) -> str:
        """Of what is allocated and not searched for, in words."""
        if self.search is None or not self.widths_searched:
            return readers
        return f"widths that are allocated, and `method` {self.search.method} searches for them"

    def _check_numbers(self) -> None:
        check_whole("limit", self.limit, 1)
        for name, value in (("strength", self.strength), ("drop_below", self.drop_below)):
            if value is not None:
                check_number(name, value)
        for name, value, least in (("steps", self.steps, 0), ("every", self.every, 1)):
            if value is not None:
                check_whole(name, value, least)

    def check_files(self, options: Options) -> None:
        """Of what needs a target, which there is, if `options` name one. Raises InputError."""
        if options.target:
            return
        plain = Options()
        for name in ("opset", "runs", "threads"):
            given = getattr(options, name) != getattr(plain, name)
            refuse_unread((name, given, False, "files, which need a `target`"))
        read = self.looks or self.teaches
        refuse_unread(("images", self.images, read, "compensation, criteria, training, and files"))
        precision = options.precision
        if self.goal is not None and self.goal.unit == "ms":
            raise InputError(f"`{self.goal.kind}` is counted by a latency table; give `target`")
        if precision != "fp32":
            raise InputError("`precision` is of files, which need a `target`")
