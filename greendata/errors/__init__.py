"""Every error that greendata raises, one class for each situation.

    GreenDataError                  the root: ``except GreenDataError`` catches all of them
    ├── ResultTimeout               get(timeout=) gave up waiting; also gevent.Timeout and TimeoutError
    ├── DeadlineExceeded            the job ran out of time; also TimeoutError
    ├── JobCancelled                cancel() was called before there was an outcome
    ├── JobAborted                  the job raised something that is not an Exception; also RuntimeError
    ├── PoolFull                    the queue has reached its limit; also RuntimeError
    ├── NoThread                    there is no worker, and no native thread can be started; also RuntimeError
    ├── WorkerLost                  the worker that had the job ended; also RuntimeError
    ├── PoolClosed                  the pool is drained and takes no more work; also RuntimeError
    ├── PolarsForked                this process was forked after Polars ran; also RuntimeError
    ├── ResultLost                  the job belongs to the parent process; also RuntimeError
    ├── UsedAsValue                 a result was used as its value; also AttributeError and TypeError
    ├── WaitsForItself              a job waited for its own result; also RuntimeError
    │
    ├── GroupClosed                 the group was left, or is being cancelled; also RuntimeError
    ├── GroupTimeout                a group ran out of time; also TimeoutError
    ├── CallerStopped               the caller was stopped, or its hub is gone; also RuntimeError
    ├── ForeignGreenlet             waiting for a greenlet of another thread; also RuntimeError
    ├── NoCaller                    this thread cannot have a caller; also RuntimeError
    ├── ServiceEnded                a service returned before it was asked to stop; also RuntimeError
    │
    ├── AsyncFunction               the function to run is an async function; also TypeError
    ├── BadArgument                 an argument that cannot be used; also ValueError
    ├── BadChoice                   a value that is not among the allowed ones; also ValueError
    ├── BadSetting                  configure() or a GREENDATA_* variable; also ValueError
    ├── BadTimeout                  a timeout that is negative or not a number; also ValueError
    ├── NotAResult                  the object to wait for is not a result or a greenlet; also TypeError
    ├── NotCallable                 the object to run is not callable; also TypeError
    ├── UnknownArgument             a keyword argument or setting that does not exist; also TypeError
    │
    ├── OptionTaken                 an argument for the function has the name of an option; also TypeError
    ├── BatchesBusy                 two greenlets read one batch stream at once; also RuntimeError
    ├── BatchesHaveNoResult         a stream of batches was used like a result; also AttributeError
    ├── BatchesSpent                a batch stream that was started cannot be exported; also RuntimeError
    ├── SeamMissing                 the installed Polars cannot be patched; also RuntimeError
    ├── BadEngine                   no such Polars engine; also ValueError
    ├── NotAFrame                   the object to collect or write is not a frame; also TypeError
    │
    ├── WorkerDied                  the process that ran the query ended; also RuntimeError
    ├── MemoryLimitExceeded         a WorkerDied: the query needed too much memory; also MemoryError
    ├── ChildFailed                 a child process raised an error that cannot be sent; also RuntimeError
    ├── NotSendable                 it cannot be sent to a child process; also ValueError
    ├── RunsNoFunctions             the engine that was passed to run() runs queries only; also TypeError
    ├── EngineClosed                the engine was closed; also RuntimeError
    ├── EngineFailed                an engine in a child process that cannot be used; also RuntimeError
    ├── ClusterUnreachable          the cluster cannot be used; also ConnectionError
    ├── NodeLost                    the node that ran the query died; also RuntimeError
    ├── NodeDiffers                 a node has other versions than this process; also RuntimeError
    ├── RouteFailed                 the route of configure() failed to choose an engine; also RuntimeError
    │
    ├── FrameMismatch               a frame's schema differs from that of the file; also ValueError
    ├── NotWritable                 columns that a format cannot store; also TypeError
    ├── ChunksBusy                  two greenlets read one encoder at once; also RuntimeError
    ├── BodyTooLarge                an input is larger than allowed; also ValueError
    ├── Malformed                   bytes that are not in the expected format; also ValueError
    │   └── TooCostly               reading them took a child process too much memory or time
    │
    ├── NotAModel                   the object to validate against is not a model; also TypeError
    ├── NoColumnForm                a field that cannot be stored in a column; also TypeError
    ├── DuplicateColumn             two fields of a model have the same alias; also ValueError
    ├── FrameInvalid                rows that do not fit the model; also ValueError
    │
    ├── PathRefused                 a path that leads out of its root; also ValueError
    ├── FileMissing                 no file or folder of that name; also FileNotFoundError
    ├── UnreadableFile              a file that cannot be read in its format; also ValueError
    ├── NoModel                     a typed frame without a model; also TypeError
    ├── NotFromHere                 the method that makes a typed frame does not accept the data; also TypeError
    ├── NotArrow                    the object has no Arrow stream; also TypeError
    ├── ColumnsUnequal              columns of one frame that differ in length; also ValueError
    ├── ModelMismatch               a frame whose columns do not fit the model; also ValueError
    ├── PlanRefused                 an operation that the frame's columns do not allow; also ValueError
    ├── UnknownColumn               it names a column that does not exist; also LookupError
    │
    ├── UnknownDatabase             not an address or connection of a supported database; also ValueError
    ├── DatabaseUnreachable         the database cannot be opened or connected to; also ConnectionError
    ├── QueryFailed                 the database refused a statement, or failed during it; also RuntimeError
    │   ├── LoadFailed              some of the tables of a load were not written
    │   ├── TableExists             the table to write exists, and if_exists is "fail"
    │   └── WriteRefused            a value would be changed by the table
    ├── ColumnUnreadable            a query returns a column that Polars cannot hold; also TypeError
    ├── ColumnUnwritable            a frame has a type that the database cannot store; also TypeError
    ├── ConnectionBusy              two jobs use one connection at once; also RuntimeError
    │
    ├── FetchFailed                 no response, or one with a status other than 200; also RuntimeError
    ├── FetchTimeout                a response was not complete in time; also TimeoutError
    ├── BadUrl                      a text is not a URL that can be fetched; also ValueError
    ├── PagesEndless                the pages of an API do not end; also ValueError
    ├── UrlRefused                  a forbidden scheme or address, or too many redirects; also ValueError
    ├── AnswerTooLarge              a response is larger than allowed; also ValueError
    ├── AnswerBroken                a response was incomplete or garbled; also ValueError
    ├── WrongContentType            a response has another media type than expected; also ValueError
    │
    ├── CrawlFolderRefused          the folder for a crawl's dataset cannot be used; also ValueError
    ├── CrawlMismatch               a crawl is resumed with other arguments; also ValueError
    ├── CrawlNotSaved               pages of a crawl could not be stored; also OSError
    ├── CrawlRunning                another process crawls into the folder; also RuntimeError
    │
    ├── ElementTimeout              a stage's function took longer than its timeout; also TimeoutError
    ├── PipelineTimeout             get(timeout=) of a stage gave up, and cancelled its run; a ResultTimeout
    ├── StreamBusy                  two greenlets read one pipeline iterator at once; also RuntimeError
    ├── BadSignature                a stage cannot call the function; also TypeError
    ├── NotIterable                 the source of a pipeline is not iterable; also TypeError
    │
    ├── NoSnapshot                  the address does not return a snapshot; also ConnectionError
    ├── NotASnapshot                the response is not a snapshot; also ValueError
    ├── NotImportable               the module to examine cannot be imported; also ImportError
    ├── NoCheckout                  the command needs a checkout of the source; also FileNotFoundError
    │
    ├── ClientGone                  the client left before its response was complete; also ConnectionResetError
    ├── FormatUnknown               ?format= names an unknown format; also ValueError
    ├── NotAcceptable               the client accepts none of the formats; also ValueError
    ├── BodyUnsupported             a request's body of an unsupported type; also ValueError
    ├── BodyInvalid                 a request's body that is invalid for its model; also ValueError
    └── DashboardOpen               the page is on, and nothing restricts access to it; also RuntimeError

Each class builds the text of its error, and has the objects concerned as attributes.
"""

from __future__ import annotations

from greendata.errors.arguments import (
    AsyncFunction,
    BadArgument,
    BadChoice,
    BadSetting,
    BadTimeout,
    NotAResult,
    NotCallable,
    OptionTaken,
    UnknownArgument,
)
from greendata.errors.fetch import (
    AnswerBroken,
    AnswerTooLarge,
    BadUrl,
    CrawlFolderRefused,
    CrawlMismatch,
    CrawlNotSaved,
    CrawlRunning,
    FetchFailed,
    FetchTimeout,
    PagesEndless,
    UrlRefused,
    WrongContentType,
)
from greendata.errors.formats import (
    BodyTooLarge,
    ChunksBusy,
    FrameMismatch,
    Malformed,
    NotWritable,
    TooCostly,
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
    UsedAsValue,
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
    PipelineTimeout,
    StreamBusy,
)
from greendata.errors.queries import (
    BadEngine,
    BatchesBusy,
    BatchesHaveNoResult,
    BatchesSpent,
    ChildFailed,
    ClusterUnreachable,
    EngineClosed,
    EngineFailed,
    MemoryLimitExceeded,
    NodeDiffers,
    NodeLost,
    NotAFrame,
    NotSendable,
    RouteFailed,
    RunsNoFunctions,
    SeamMissing,
    WorkerDied,
)
from greendata.errors.root import (
    GreenDataError,
)
from greendata.errors.sql import (
    ColumnUnreadable,
    ColumnUnwritable,
    ConnectionBusy,
    DatabaseUnreachable,
    LoadFailed,
    QueryFailed,
    TableExists,
    UnknownDatabase,
    WriteRefused,
)
from greendata.errors.typed import (
    ColumnsUnequal,
    FileMissing,
    ModelMismatch,
    NoModel,
    NotArrow,
    NotFromHere,
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
    "AsyncFunction",
    "BadArgument",
    "BadChoice",
    "BadEngine",
    "BadSetting",
    "BadSignature",
    "BadTimeout",
    "BadUrl",
    "BatchesBusy",
    "BatchesHaveNoResult",
    "BatchesSpent",
    "BodyInvalid",
    "BodyTooLarge",
    "BodyUnsupported",
    "CallerStopped",
    "ChildFailed",
    "ChunksBusy",
    "ClientGone",
    "ClusterUnreachable",
    "ColumnUnreadable",
    "ColumnUnwritable",
    "ColumnsUnequal",
    "ConnectionBusy",
    "CrawlFolderRefused",
    "CrawlMismatch",
    "CrawlNotSaved",
    "CrawlRunning",
    "DashboardOpen",
    "DatabaseUnreachable",
    "DeadlineExceeded",
    "DuplicateColumn",
    "ElementTimeout",
    "EngineClosed",
    "EngineFailed",
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
    "LoadFailed",
    "Malformed",
    "MemoryLimitExceeded",
    "ModelMismatch",
    "NoCaller",
    "NoCheckout",
    "NoColumnForm",
    "NoModel",
    "NoSnapshot",
    "NoThread",
    "NodeDiffers",
    "NodeLost",
    "NotAFrame",
    "NotAModel",
    "NotAResult",
    "NotASnapshot",
    "NotAcceptable",
    "NotArrow",
    "NotCallable",
    "NotFromHere",
    "NotImportable",
    "NotIterable",
    "NotSendable",
    "NotWritable",
    "OptionTaken",
    "PagesEndless",
    "PathRefused",
    "PipelineTimeout",
    "PlanRefused",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "QueryFailed",
    "ResultLost",
    "ResultTimeout",
    "RouteFailed",
    "RunsNoFunctions",
    "SeamMissing",
    "ServiceEnded",
    "StreamBusy",
    "TableExists",
    "TooCostly",
    "UnknownArgument",
    "UnknownColumn",
    "UnknownDatabase",
    "UnreadableFile",
    "UrlRefused",
    "UsedAsValue",
    "WaitsForItself",
    "WorkerDied",
    "WorkerLost",
    "WriteRefused",
    "WrongContentType",
)


def __dir__() -> list[str]:
    return [*__all__]
