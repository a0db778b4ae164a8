"""Every error greendata raises, one class for one situation.

    GreenDataError                  the root: ``except GreenDataError`` catches all of them
    ├── ResultTimeout               get(timeout=) gave up waiting; also gevent.Timeout and TimeoutError
    ├── DeadlineExceeded            the job itself was out of time; also TimeoutError
    ├── JobCancelled                cancel() was called before the outcome
    ├── JobAborted                  the job let out something that is no Exception; also RuntimeError
    ├── PoolFull                    the queue is at its bound; also RuntimeError
    ├── PoolClosed                  the pool is drained and takes no more work; also RuntimeError
    ├── PolarsForked                this process was forked after Polars ran; also RuntimeError
    ├── ResultLost                  the job belongs to the process this one was forked from; also RuntimeError
    ├── BatchesBusy                 two greenlets asked one batch stream at once; also RuntimeError
    ├── ChunksBusy                  two greenlets asked one encoder at once; also RuntimeError
    ├── GroupClosed                 a group that was left, or is being cancelled; also RuntimeError
    ├── GroupTimeout                a group was out of time; also TimeoutError
    ├── CallerStopped               the caller was stopped, or its hub is gone; also RuntimeError
    ├── NoCaller                    no caller can be had in this thread; also RuntimeError
    ├── ServiceEnded                a service returned before it was told to stop; also RuntimeError
    ├── WaitsForItself              a job was to wait for its own result; also RuntimeError
    ├── BatchesSpent                a batch stream that was begun cannot be exported; also RuntimeError
    ├── SeamMissing                 the Polars in place cannot be patched; also RuntimeError
    ├── ElementTimeout              a stage's function took longer than its timeout; also TimeoutError
    ├── StreamBusy                  two greenlets asked one pipeline iterator at once; also RuntimeError
    ├── BadArgument                 an argument that cannot be used; also ValueError
    ├── FrameMismatch               a frame whose schema is not that of the file; also ValueError
    ├── BodyTooLarge                more bytes than allowed; also ValueError
    ├── Malformed                   bytes that are not what they were said to be; also ValueError
    ├── NotWritable                 columns that a format has no form for; also TypeError
    ├── BadSignature                a stage cannot call the function; also TypeError
    ├── NotIterable                 the source of a pipeline is no iterable; also TypeError
    ├── BadTimeout                  a timeout that is negative or no number; also ValueError
    ├── BadSetting                  configure() or a GREENDATA_* variable; also ValueError
    ├── BadEngine                   no such Polars engine; also ValueError
    ├── NotCallable                 the thing to run is no callable; also TypeError
    ├── FrameInvalid                rows that do not fit the model; also ValueError
    ├── DuplicateColumn             two fields of a model have one alias; also ValueError
    ├── NoColumnForm                a field that no column can hold; also TypeError
    ├── NotAModel                   the thing to validate against is no model; also TypeError
    ├── BadChoice                   a word that is none of those allowed; also ValueError
    ├── NotAResult                  the thing to wait for is no result and no greenlet; also TypeError
    ├── ColumnsUnequal              columns of one frame that differ in length; also ValueError
    ├── FileMissing                 no file of that name, or no folder for it; also FileNotFoundError
    ├── ModelMismatch               a frame whose columns cannot be the model's; also ValueError
    ├── NoModel                     a typed frame without a model; also TypeError
    ├── NotArrow                    the thing has no Arrow stream; also TypeError
    ├── PathRefused                 a path that leads out of its root; also ValueError
    ├── PlanRefused                 an operation that its frame's columns do not allow; also ValueError
    │   └── UnknownColumn           it names a column that is not there; also LookupError
    ├── UnreadableFile              a file that is not what it should be; also ValueError
    └── NotAFrame                   the thing to collect or write is no frame; also TypeError

The text of an error lives in its class, and the object it is about is its attribute.
"""

from __future__ import annotations

from greendata.errors.arguments import (
    BadArgument,
    BadChoice,
    BadSetting,
    BadTimeout,
    NotAResult,
    NotCallable,
)
from greendata.errors.formats import (
    BodyTooLarge,
    ChunksBusy,
    FrameMismatch,
    Malformed,
    NotWritable,
)
from greendata.errors.groups import (
    CallerStopped,
    GroupClosed,
    GroupTimeout,
    NoCaller,
    ServiceEnded,
)
from greendata.errors.jobs import (
    DeadlineExceeded,
    JobAborted,
    JobCancelled,
    PolarsForked,
    PoolClosed,
    PoolFull,
    ResultLost,
    ResultTimeout,
    WaitsForItself,
)
from greendata.errors.pipelines import (
    BadSignature,
    ElementTimeout,
    NotIterable,
    StreamBusy,
)
from greendata.errors.queries import (
    BadEngine,
    BatchesBusy,
    BatchesSpent,
    NotAFrame,
    SeamMissing,
)
from greendata.errors.root import (
    GreenDataError,
)
from greendata.errors.typed import (
    ColumnsUnequal,
    FileMissing,
    ModelMismatch,
    NoModel,
    NotArrow,
    PathRefused,
    PlanRefused,
    UnknownColumn,
    UnreadableFile,
)
from greendata.errors.validation import (
    DuplicateColumn,
    FrameInvalid,
    NoColumnForm,
    NotAModel,
)

__all__ = (
    "BadArgument",
    "BadChoice",
    "BadEngine",
    "BadSetting",
    "BadSignature",
    "BadTimeout",
    "BatchesBusy",
    "BatchesSpent",
    "BodyTooLarge",
    "CallerStopped",
    "ChunksBusy",
    "ColumnsUnequal",
    "DeadlineExceeded",
    "DuplicateColumn",
    "ElementTimeout",
    "FileMissing",
    "FrameInvalid",
    "FrameMismatch",
    "GreenDataError",
    "GroupClosed",
    "GroupTimeout",
    "JobAborted",
    "JobCancelled",
    "Malformed",
    "ModelMismatch",
    "NoCaller",
    "NoColumnForm",
    "NoModel",
    "NotAFrame",
    "NotAModel",
    "NotAResult",
    "NotArrow",
    "NotCallable",
    "NotIterable",
    "NotWritable",
    "PathRefused",
    "PlanRefused",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "ResultLost",
    "ResultTimeout",
    "SeamMissing",
    "ServiceEnded",
    "StreamBusy",
    "UnknownColumn",
    "UnreadableFile",
    "WaitsForItself",
)
