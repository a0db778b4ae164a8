"""Every error greendata raises, one class for one situation.

    GreenDataError                  the root: ``except GreenDataError`` catches all of them
    ├── ResultTimeout               get(timeout=) gave up waiting; also gevent.Timeout and TimeoutError
    ├── DeadlineExceeded            the job itself was out of time; also TimeoutError
    ├── JobCancelled                cancel() was called before the outcome
    ├── JobAborted                  the job let out something that is no Exception; also RuntimeError
    ├── PoolFull                    the queue is at its bound; also RuntimeError
    ├── NoThread                    there is no worker, and no native thread to be had; also RuntimeError
    ├── WorkerLost                  the worker that had the job ended; also RuntimeError
    ├── PoolClosed                  the pool is drained and takes no more work; also RuntimeError
    ├── PolarsForked                this process was forked after Polars ran; also RuntimeError
    ├── ResultLost                  the job belongs to the process this one was forked from; also RuntimeError
    ├── WaitsForItself              a job was to wait for its own result; also RuntimeError
    │
    ├── GroupClosed                 a group that was left, or is being cancelled; also RuntimeError
    ├── GroupTimeout                a group was out of time; also TimeoutError
    ├── CallerStopped               the caller was stopped, or its hub is gone; also RuntimeError
    ├── ForeignGreenlet             a greenlet of another thread was to be waited for; also RuntimeError
    ├── NoCaller                    no caller can be had in this thread; also RuntimeError
    ├── ServiceEnded                a service returned before it was told to stop; also RuntimeError
    │
    ├── BadArgument                 an argument that cannot be used; also ValueError
    ├── BadChoice                   a word that is none of those allowed; also ValueError
    ├── BadSetting                  configure() or a GREENDATA_* variable; also ValueError
    ├── BadTimeout                  a timeout that is negative or no number; also ValueError
    ├── NotAResult                  the thing to wait for is no result and no greenlet; also TypeError
    ├── NotCallable                 the thing to run is no callable; also TypeError
    │
    ├── BatchesBusy                 two greenlets asked one batch stream at once; also RuntimeError
    ├── BatchesSpent                a batch stream that was begun cannot be exported; also RuntimeError
    ├── SeamMissing                 the Polars in place cannot be patched; also RuntimeError
    ├── BadEngine                   no such Polars engine; also ValueError
    ├── NotAFrame                   the thing to collect or write is no frame; also TypeError
    │
    ├── FrameMismatch               a frame whose schema is not that of the file; also ValueError
    ├── NotWritable                 columns that a format has no form for; also TypeError
    ├── ChunksBusy                  two greenlets asked one encoder at once; also RuntimeError
    ├── BodyTooLarge                an answer is larger than allowed; also ValueError
    ├── Malformed                   bytes that are not what they were said to be; also ValueError
    │
    ├── NotAModel                   the thing to validate against is no model; also TypeError
    ├── NoColumnForm                a field that no column can hold; also TypeError
    ├── DuplicateColumn             two fields of a model have one alias; also ValueError
    ├── FrameInvalid                rows that do not fit the model; also ValueError
    │
    ├── PathRefused                 a path that leads out of its root; also ValueError
    ├── FileMissing                 no file of that name, or no folder for it; also FileNotFoundError
    ├── UnreadableFile              a file that is not what it should be; also ValueError
    ├── NoModel                     a typed frame without a model; also TypeError
    ├── NotArrow                    the thing has no Arrow stream; also TypeError
    ├── ColumnsUnequal              columns of one frame that differ in length; also ValueError
    ├── ModelMismatch               a frame whose columns cannot be the model's; also ValueError
    ├── PlanRefused                 an operation that its frame's columns do not allow; also ValueError
    ├── UnknownColumn               it names a column that is not there; also LookupError
    │
    ├── UnknownDatabase             no address or connection of a database we have a driver for; also ValueError
    ├── DatabaseUnreachable         the database cannot be opened or connected to; also ConnectionError
    ├── QueryFailed                 the database refused a statement, or failed in it; also RuntimeError
    │   └── WriteRefused            a value would be changed by the table
    ├── ColumnUnreadable            a query returns a column that no column of Polars can hold; also TypeError
    ├── ColumnUnwritable            a frame has a type that the database has no form for; also TypeError
    ├── ConnectionBusy              a connection was given to two jobs at once; also RuntimeError
    │
    ├── FetchFailed                 no answer, or one of another status than 200; also RuntimeError
    ├── FetchTimeout                an answer was not complete in time; also TimeoutError
    ├── UrlRefused                  a scheme, an address or a redirect too many; also ValueError
    ├── AnswerTooLarge              an answer is larger than allowed; also ValueError
    ├── AnswerBroken                an answer came incomplete or garbled; also ValueError
    ├── WrongContentType            an answer of another kind than asked for; also ValueError
    │
    ├── ElementTimeout              a stage's function took longer than its timeout; also TimeoutError
    ├── StreamBusy                  two greenlets asked one pipeline iterator at once; also RuntimeError
    ├── BadSignature                a stage cannot call the function; also TypeError
    ├── NotIterable                 the source of a pipeline is no iterable; also TypeError
    │
    ├── NoSnapshot                  no process answers there with its snapshot; also ConnectionError
    ├── NotASnapshot                what answers there is no snapshot; also ValueError
    ├── NotImportable               a module to examine raised at its import; also ImportError
    ├── NoCheckout                  a part of the source that is not installed; also FileNotFoundError
    │
    ├── ClientGone                  the client left before its answer was complete; also ConnectionResetError
    ├── FormatUnknown               ?format= names no format; also ValueError
    ├── NotAcceptable               the client accepts none of the formats; also ValueError
    ├── BodyUnsupported             a request's body of a kind that is not read; also ValueError
    ├── BodyInvalid                 a request's body that breaks its model's rules; also ValueError
    └── DashboardOpen               the page of a server without anybody to guard it; also RuntimeError

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
from greendata.errors.fetch import (
    AnswerBroken,
    AnswerTooLarge,
    FetchFailed,
    FetchTimeout,
    UrlRefused,
    WrongContentType,
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
    ForeignGreenlet,
    GroupClosed,
    GroupTimeout,
    NoCaller,
    ServiceEnded,
)
from greendata.errors.jobs import (
    DeadlineExceeded,
    JobAborted,
    JobCancelled,
    NoThread,
    PolarsForked,
    PoolClosed,
    PoolFull,
    ResultLost,
    ResultTimeout,
    WaitsForItself,
    WorkerLost,
)
from greendata.errors.observe import (
    NoCheckout,
    NoSnapshot,
    NotASnapshot,
    NotImportable,
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
from greendata.errors.sql import (
    ColumnUnreadable,
    ColumnUnwritable,
    ConnectionBusy,
    DatabaseUnreachable,
    QueryFailed,
    UnknownDatabase,
    WriteRefused,
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
from greendata.errors.web import (
    BodyInvalid,
    BodyUnsupported,
    ClientGone,
    DashboardOpen,
    FormatUnknown,
    NotAcceptable,
)

__all__ = (
    "AnswerBroken",
    "AnswerTooLarge",
    "BadArgument",
    "BadChoice",
    "BadEngine",
    "BadSetting",
    "BadSignature",
    "BadTimeout",
    "BatchesBusy",
    "BatchesSpent",
    "BodyInvalid",
    "BodyTooLarge",
    "BodyUnsupported",
    "CallerStopped",
    "ChunksBusy",
    "ClientGone",
    "ColumnUnreadable",
    "ColumnUnwritable",
    "ColumnsUnequal",
    "ConnectionBusy",
    "DashboardOpen",
    "DatabaseUnreachable",
    "DeadlineExceeded",
    "DuplicateColumn",
    "ElementTimeout",
    "FetchFailed",
    "FetchTimeout",
    "FileMissing",
    "ForeignGreenlet",
    "FormatUnknown",
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
    "NoCheckout",
    "NoColumnForm",
    "NoModel",
    "NoSnapshot",
    "NoThread",
    "NotAFrame",
    "NotAModel",
    "NotAResult",
    "NotASnapshot",
    "NotAcceptable",
    "NotArrow",
    "NotCallable",
    "NotImportable",
    "NotIterable",
    "NotWritable",
    "PathRefused",
    "PlanRefused",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "QueryFailed",
    "ResultLost",
    "ResultTimeout",
    "SeamMissing",
    "ServiceEnded",
    "StreamBusy",
    "UnknownColumn",
    "UnknownDatabase",
    "UnreadableFile",
    "UrlRefused",
    "WaitsForItself",
    "WorkerLost",
    "WriteRefused",
    "WrongContentType",
)
