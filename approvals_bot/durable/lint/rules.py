"""The linter's rules: what a workflow's body may not use, by full name, and what to use instead."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the linter. Its message is the name that was found, then `why`, a colon and `instead`.

    `names` and `mentioned` match any mention, `called` matches only calls, `bare` only calls without arguments.
    """

    code: str
    title: str
    why: str
    instead: str
    names: frozenset[str] = frozenset()
    mentioned: re.Pattern[str] | None = None
    called: re.Pattern[str] | None = None
    bare: frozenset[str] = frozenset()

    def message(self, name: str) -> str:
        return f"{name.removeprefix('builtins.')} {self.why}: {self.instead}"


def _names(*groups: str) -> frozenset[str]:
    """Expand `"time: time monotonic"` to time.time and time.monotonic."""
    found = set[str]()
    for group in groups:
        module, _, names = group.partition(": ")
        found |= {f"{module}.{name}" for name in names.split()}
    return frozenset(found)


def _modules(*modules: str) -> re.Pattern[str]:
    """Match the functions and client classes of these modules, but no exceptions and constants."""
    inside = "|".join(re.escape(module) for module in modules)
    client = r"\w*(?:Client|Session|Connection|Connector|Pool|PoolManager|Engine|SMTP(?:_SSL)?|Redis|FTP)"
    return re.compile(rf"(?:{inside})\.(?:[\w.]*\.)?(?:[a-z_]\w*|{client})")


_STEP = "do that in a @step"

CLOCK = Rule(
    "AB101",
    "the clock",
    "reads this machine's clock, and a replay would read a different time",
    "use now()",
    names=_names(
        "datetime.datetime: now utcnow today",
        "datetime.date: today",
        "time: time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns "
        "thread_time thread_time_ns clock_gettime clock_gettime_ns",
        "pendulum: now today",
        "arrow: now utcnow",
        "django.utils.timezone: now localtime localdate",
    ),
    bare=_names("time: localtime gmtime ctime asctime"),
)
RANDOM = Rule(
    "AB102",
    "random numbers",
    "gives different numbers in a replay",
    "use random() of approvals_bot, or make secrets in a @step",
    names=_names("random: SystemRandom", "os: urandom getrandom", "numpy.random: default_rng"),
    mentioned=re.compile(r"random\.[a-z]\w*|secrets\.\w+|numpy\.random\.[a-z]\w*"),
    bare=_names("random: Random"),
)
IDENTIFIERS = Rule(
    "AB103",
    "new identifiers",
    "gives a different identifier in a replay",
    "use uuid4() of approvals_bot",
    names=_names(
        "uuid: uuid1 uuid4 uuid6 uuid7 uuid8 getnode", "shortuuid: uuid", "nanoid: generate", "ulid: ULID new"
    ),
)
ENVIRONMENT = Rule(
    "AB104",
    "the environment",
    "depends on the process that replays",
    "read it in a @step, or pass it as input",
    names=_names(
        "os: environ environb getenv getpid getppid getcwd uname cpu_count getlogin",
        "sys: argv",
        "socket: gethostname getfqdn",
        "getpass: getuser",
    ),
    called=_modules("platform"),
)
FILES = Rule(
    "AB105",
    "files and terminals",
    "touches files of this machine",
    _STEP,
    names=_names("builtins: open input", "io: open FileIO", "os: popen", "sqlite3: connect"),
    called=re.compile(
        r"aiofiles\.\w+|tempfile\.\w+|shutil\.\w+|glob\.i?glob|aiosqlite\.connect|fcntl\.\w+|syslog\.\w+"
        r"|os\.(?:listdir|scandir|f?walk|l?stat|open|read|write|remove|removedirs|unlink|renames?|replace|mkdir|makedirs"
        r"|rmdir|access|link|symlink|readlink|truncate|l?chmod|l?chown|chflags|utime|mkfifo|mknod|lockf|pipe2?"
        r"|(?:get|set|list|remove)xattr)"
        r"|os\.path\.(?:l?exists|isfile|isdir|islink|ismount|getsize|get[acm]time|realpath|samefile)"
        r"|pathlib\.Path\.(?:read_\w+|write_\w+|open|exists|is_file|is_dir|is_symlink|l?stat|mkdir|unlink|rename|replace"
        r"|touch|iterdir|r?glob|walk|rmdir|cwd|home|resolve|l?chmod|symlink_to|hardlink_to|readlink|owner|group)"
    ),
)
NETWORK = Rule(
    "AB106",
    "the network",
    "talks to another machine",
    _STEP,
    names=_names(
        "asyncio: open_connection open_unix_connection start_server start_unix_server",
        "anyio: connect_tcp connect_unix create_tcp_listener create_unix_listener create_udp_socket getaddrinfo",
        "asyncio.loop: create_connection create_server create_datagram_endpoint getaddrinfo",
    ),
    called=_modules(
        *(
            "requests",
            "httpx",
            "httpx2",
            "aiohttp",
            "urllib.request",
            "urllib3",
            "http.client",
            "smtplib",
            "aiosmtplib",
        ),
        *("ftplib", "boto3", "redis", "psycopg", "psycopg2", "asyncpg", "slack_sdk", "websockets", "grpc"),
    ),
)
SOCKETS = Rule(
    NETWORK.code, NETWORK.title, NETWORK.why, _STEP, called=re.compile(r"socket\.(?!inet_|hton|ntoh)[a-z]\w*")
)
THREADS = Rule(
    "AB107",
    "threads and processes",
    "runs outside the log, so a replay can't repeat it",
    _STEP,
    names=_names(
        "asyncio: to_thread run run_coroutine_threadsafe create_subprocess_exec create_subprocess_shell",
        "asyncio.loop: run_in_executor call_soon_threadsafe subprocess_exec subprocess_shell run_until_complete",
        "threading: Thread Timer",
        "concurrent.futures: ThreadPoolExecutor ProcessPoolExecutor InterpreterPoolExecutor",
        "os: system fork forkpty posix_spawn posix_spawnp startfile kill killpg abort _exit chdir putenv unsetenv",
        "signal: signal raise_signal alarm setitimer pthread_kill pthread_sigmask set_wakeup_fd pause sigwait",
    ),
    called=re.compile(
        r"subprocess\.(?:[a-z]\w*|Popen)|multiprocessing\.\w+|os\.(?:exec|spawn)\w+|pty\.\w+|webbrowser\.\w+"
        r"|_thread\.start_\w+|anyio\.(?:to_thread|to_process|from_thread)\.\w+|anyio\.(?:run_process|open_process)"
    ),
)
ORDER = Rule(
    "AB108",
    "the order of a set",
    "has a different order in each process",
    "sort it first: sorted(…)",
)
ADDRESSES = Rule(
    "AB109",
    "hashes and addresses",
    "gives a different number in each process",
    "compare or number the objects themselves",
    called=re.compile(r"builtins\.(?:hash|id)"),
)
BLOCKING = Rule(
    "AB110",
    "blocking",
    "blocks all other runs, and is not in the log",
    'use await sleep("10s"), which is durable',
    names=_names("time: sleep"),
)
ENGINE = Rule(
    "AB111",
    "calls to the engine",
    "acts on other runs from a body, and does so again in each replay",
    _STEP,
    called=re.compile(
        r"approvals_bot\.(?:engine\.)?(?:start|resume_hook|resume_webhook|get_hook_by_token|Engine\.open)"
    ),
)

RULES = (CLOCK, RANDOM, IDENTIFIERS, ENVIRONMENT, FILES, SOCKETS, NETWORK, THREADS, ORDER, ADDRESSES, BLOCKING, ENGINE)

MAKERS = {
    "pathlib.Path": "pathlib.Path",
    "pathlib.Path.cwd": "pathlib.Path",
    "asyncio.get_running_loop": "asyncio.loop",
    "asyncio.get_event_loop": "asyncio.loop",
    "httpx.Client": "httpx.Client",
    "httpx.AsyncClient": "httpx.AsyncClient",
    "requests.Session": "requests.Session",
}
"""The types of the objects that these calls return, which give their methods full names.

`time()` of a workflow's own loop comes from the log, so it is no finding.
"""


def rule_for(name: str, *, called: bool = False, bare: bool = False) -> Rule | None:
    """Return the rule that this mention of a full name breaks, if any."""
    for rule in RULES:
        if name in rule.names or (bare and name in rule.bare):
            return rule
        if rule.mentioned is not None and rule.mentioned.fullmatch(name):
            return rule
        if called and rule.called is not None and rule.called.fullmatch(name):
            return rule
    return None
