"""One frozen class per section of the project file.

The text under each field is its explanation: `mlray explain SECTION`, the JSON schema and the
comments of `mlray explain FILE` all show it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SecretStr

from mlray.config.fields import Auto, BudgetText, Duration, Frac, Section, Size
from mlray.config.quality import Quality
from mlray.config.rows import Sources


class Split(Section):
    """Which rows train, validate and test."""

    by: Literal["auto", "time", "group", "hash", "column"] = "auto"
    """time: older rows train. group: rows of one group stay together. hash: by the hash of the
    row or of `column`. column: a column says `train`, `validation`, `test`."""
    column: str | None = None
    """Time, group, key or part column, as `by` says."""
    validation: float | str | None = None
    """Share of rows, or with `by: time` a period such as `2013-09` or its first moment."""
    test: float | str | None = None
    """Share of rows, or a period. Rows after the last period are kept apart as `later`."""
    seed: int = 0
    """Another seed gives another hash split."""


class Model(Section):
    """What is predicted from what, by which network."""

    target: str
    """Column to predict."""
    task: Literal["auto", "binary", "multiclass", "regression"] = "auto"
    """Kind of problem; derived from the target."""
    positive: str | int | float | bool | None = None
    """Value of a binary target that counts as 1; by default true, 1, or the rarer one."""
    label_known_at: str | None = None
    """Time column at which the label became known; it never reaches the network, nor does any
    label that was not known by the end of its part of a time split."""
    features: list[str] | None = None
    """Columns to learn from; by default all but target, times, ids, constants and free text."""
    ignore: list[str] = []
    """Columns to leave out."""
    kinds: dict[str, Literal["numeric", "category", "time"]] = {}
    """How a column is encoded where the default is wrong."""
    network: str = "mlp"
    """`mlp` (embeddings, piecewise linear numbers, residual blocks) or `module:Class`, a
    torch.nn.Module built from (inputs, **options)."""
    options: dict[str, Any] = {}
    """Passed on to the network."""


class Training(Section):
    """How it is trained."""

    workers: int | Auto = "auto"
    """Ray Train workers; auto: one per GPU, else one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda if the cluster has GPUs."""
    budget: BudgetText | Auto = "auto"
    """`6 epochs`, `2000000 rows` or `20 minutes`; early stopping may end it sooner. auto: from the
    number of rows."""
    batch_size: int | Auto = "auto"
    """Rows per step over all workers; auto: from the number of rows."""
    learning_rate: float | Auto = "auto"
    """Peak learning rate; auto: from batch size."""
    weight_decay: float = 1e-4
    """AdamW's weight decay."""
    patience: int = 3
    """Epochs without a better validation metric before training stops."""
    class_weight: Literal["auto", "balanced", "none"] = "auto"
    """Weights of classes in the loss; auto: balanced only if a class has under 5 % of the rows.
    Probabilities are calibrated either way."""
    seed: int = 0
    """Same seed, data and number of workers: same weights on CPU."""
    max_failures: int = 3
    """Lost workers that training survives by going on from the last checkpoint."""


class Evaluation(Section):
    """How it is judged."""

    metric: str = "auto"
    """The metric that early stopping and the gate look at: roc_auc, average_precision, log_loss,
    accuracy, f1, rmse, mae, r2; derived from the task."""
    slices: list[str] = []
    """Columns whose values are also judged apart."""
    calibrate: bool = True
    """Fit the calibration of probabilities on the validation part."""


class Registry(Section):
    """When a version becomes champion."""

    promote: dict[str, str] = {}
    """Metric: `at least 0.7`, `at least champion`, `at least champion + 0.001`, `at most ...`;
    every rule must hold on the test part. Default: the metric at least as good as the
    champion's."""


class Tracking(Section):
    """Where runs are recorded."""

    uri: str | None = None
    """MLflow tracking address; by default SQLite inside the storage folder."""
    experiment: str | None = None
    """MLflow experiment; by default the project's name."""


class Storage(Section):
    """Where everything that a run leaves behind lives."""

    path: str | None = None
    """A folder that all nodes see; by default $MLRAY_HOME, or `.mlray` here or above."""


class Cluster(Section):
    """The Ray cluster."""

    address: str | None = None
    """`auto`, `local` or ray://host:port; by default $RAY_ADDRESS, else a cluster of its own."""
    cpus: int | None = None
    """CPUs of a cluster of its own; by default all."""
    object_store: Size | None = None
    """Shared memory of a cluster of its own, e.g. 1GB; what does not fit spills to disk. By
    default Ray's choice, 30 % of the memory."""
    worker_memory: Size | None = None
    """Most memory of its own that one worker process may take, e.g. 2GB: a task that wants more
    fails with a clear error, and the machine lives on. By default as much as there is."""


class Prediction(Section):
    """Where `mlray predict` writes: the rows as they came in, and `score`, `label`,
    `model_version`, `predicted_at` and `batch`. A batch is rows of one content scored by one
    version; written again it takes its own place, so a run that was killed is simply run again."""

    path: str | None = None
    """A folder of Parquet files, or one file `.csv` or `.jsonl`; or a Delta table. `--out` says
    otherwise; by default the folder `predictions` where the command runs."""
    kind: Literal["parquet", "csv", "jsonl", "sql", "delta"] | None = None
    """By default a database if there is a `url`, else as the ending of `path` shows."""
    url: SecretStr | None = None
    """Database, as in a source of kind sql; secrets from `${env:NAME}` or `${file:PATH}`."""
    table: str | None = None
    """Its table: `name` or `schema.name`; made if it is not there."""
    mode: Literal["error", "append", "replace"] = "error"
    """If there are rows already. error: nothing is scored. append: new rows are added (Parquet,
    database, Delta). replace: they go when the new rows come, in one step."""
    columns: list[str] | None = None
    """Columns of the rows to write beside the predictions; by default all. Columns with personal
    data are written as `pii` says."""
    options: dict[str, SecretStr] = {}
    """Storage options of a Delta table: keys, regions, endpoints."""

    @property
    def place(self) -> str:
        """File, folder or table of `path`, or the default."""
        return self.path or "predictions"


class Serving(Section):
    """How the champion answers."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port of the HTTP API."""
    replicas: int | tuple[int, int] = 1
    """A number, or [least, most] to scale with the load."""
    max_body_bytes: int = 1 << 20
    """A larger request body is refused with 413."""
    max_rows: int = 10_000
    """More rows in one request are refused with 413."""
    follow: Duration = "5s"
    """How often the registry is asked for a new champion."""


class Monitoring(Section):
    """How served traffic is watched."""

    window: Duration = "1h"
    """Stretch of traffic that a drift score looks at."""
    bins: Annotated[int, Field(ge=4, le=256)] = 20
    """Bins per numeric feature."""
    flush: Duration = "5s"
    """How often a replica hands its counts on."""
    psi: float = 0.2
    """Effect size at which a feature's drift is an alarm, if it is significant too."""
    false_alarms: Frac = 0.01
    """False discovery rate over the features of one window."""
    groups: list[str] = []
    """Columns whose groups are compared."""


class Project(Section):
    """One machine learning system, from rows to a served and watched model."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")]
    """Name of the project, of its registered model and of its service."""
    sources: Sources
    """Tables by name and how they are joined."""
    quality: Quality = Quality()
    """Rules for rows."""
    split: Split = Split()
    """Train, validation and test."""
    model: Model
    """What is predicted from what."""
    training: Training = Training()
    """How it is trained."""
    evaluation: Evaluation = Evaluation()
    """How it is judged."""
    registry: Registry = Registry()
    """When it is promoted."""
    tracking: Tracking = Tracking()
    """Where runs are recorded."""
    prediction: Prediction = Prediction()
    """Where batch predictions go."""
    serving: Serving = Serving()
    """How it answers."""
    monitoring: Monitoring = Monitoring()
    """How it is watched."""
    storage: Storage = Storage()
    """Where files live."""
    cluster: Cluster = Cluster()
    """Where it runs."""

    _file: str | None = PrivateAttr(default=None)
    _document: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def file(self) -> str | None:
        """Absolute path of the project file."""
        return self._file

    @property
    def folder(self) -> str:
        """Folder of the project file: relative paths and user modules start here."""
        import os

        return os.path.dirname(self._file) if self._file else os.getcwd()

    @property
    def document(self) -> dict[str, Any]:
        """What the user wrote, overrides applied, secrets still as ${env:NAME}: safe to record."""
        return self._document


def with_sections(project: Project, **sections: Section) -> Project:
    """The project with other sections; it still knows its file and what the user wrote."""
    copied = project.model_copy(update=sections)
    copied._file, copied._document = project._file, project._document
    return copied
