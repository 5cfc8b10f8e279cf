"""Runs in the emulator's own environment: executions read from stdin, one JSON document a line,
each answered by one line on stdout.

In: {"source", "argument", "environment", "url"}. Out: {"result"}, {"error"} with what the workflow
raised, or {"crash"} with a traceback; with "log". Each execution is a process of its own, forked
when all is imported: the emulator keeps what an execution leaves behind. Requests to
https://*.googleapis.com go to the url, waiting goes to the shared clock there.

Where the emulator (1.10.0) is wrong and Google's documentation is clear, it is put right here, each
with its reason. What is left of its own is what makes it a second opinion: another reader of steps,
jumps, scopes, retries and conditions.
"""

# mypy: ignore-errors

import json
import logging
import os
import sys
import threading
import traceback
from urllib.parse import urlencode, urlsplit

import requests
import yaml
from workflows_emulator import main, render
from workflows_emulator.lib import http_utils, map_utils, sys_utils
from workflows_emulator.lib.helpers import helpers
from workflows_emulator.utils import ContextDict, WorkflowError, load_package_config

logging.disable(logging.CRITICAL)

REENTRANT = threading.RLock()
LOG = []


class LocalSession(requests.Session):
    """All of Google at one address. The emulator knows Python's own ConnectionError and
    TimeoutError, and requests raises others.
    """

    url = ""

    def __init__(self, credentials) -> None:
        super().__init__()
        self.trust_env = False

    def request(self, method, url, **more):
        parts = urlsplit(url)
        assert parts.scheme == "https", url
        assert parts.netloc.endswith(".googleapis.com"), url
        try:
            return super().request(
                method, self.url + parts.path + (f"?{parts.query}" if parts.query else ""), **more
            )
        except requests.Timeout as error:
            raise TimeoutError(str(error)) from error
        except requests.ConnectionError as error:
            raise ConnectionError(str(error)) from error


class Definition(dict):
    """A subworkflow. The emulator keeps them among the variables and copies all of these for every
    expression: most of its time.
    """

    def __deepcopy__(self, memo) -> "Definition":
        return self


def ask_clock(method: str, what: str, **query) -> float:
    answer = requests.request(
        method, f"{LocalSession.url}/clock/{what}?{urlencode(query)}", timeout=30
    )
    answer.raise_for_status()
    return answer.json()["now"]


def sleep(seconds: float) -> None:
    ask_clock("POST", "sleep", seconds=seconds)


def whole_value(value, context):
    """The emulator writes a result as text and reads that as YAML: null becomes "None", and a text
    that looks like a number one.
    """
    if not isinstance(value, str) or "${" not in value:
        return value
    assert value.startswith("${"), value
    assert value.endswith("}"), value
    return render.run_code(value[2:-1], context)


def map_get(value, keys):
    """Null for a missing key and for what is no map
    (https://cloud.google.com/workflows/docs/reference/stdlib/map/get); the emulator raises.
    """
    for key in keys if isinstance(keys, list) else [keys]:
        value = dict.get(value, key) if isinstance(value, dict) else None
    return value


def log(text=None, severity="DEFAULT", json=None) -> None:
    LOG.append(
        {"severity": severity, "jsonPayload": json}
        if text is None
        else {"severity": severity, "textPayload": text}
    )


def patch() -> None:
    copied = ContextDict._hook.__func__
    ContextDict._hook = classmethod(
        lambda cls, item: item if isinstance(item, Definition) else copied(cls, item)
    )
    render.render_str = whole_value
    # the emulator evaluates Python, which writes them otherwise
    render.STANDARD_LIBRARY.update({"true": True, "false": False, "null": None})
    # the emulator's takes the default for false, 0 and "" too
    render.STANDARD_LIBRARY["default"] = helpers["default"] = lambda value, other: (
        other if value is None else value
    )
    map_utils.get = map_get
    # an assignment that fails keeps the emulator's lock, and the next one in an `except` waits for
    # it for ever
    main.LOCK = REENTRANT
    http_utils.AuthorizedSession = LocalSession
    http_utils.default = lambda scopes: (None, None)
    main.sleep = sys_utils.sleep = sleep
    sys_utils.now = lambda: ask_clock("GET", "now")
    sys_utils.log = log


def execute(order: dict) -> dict:
    LocalSession.url = order["url"]
    os.environ.update(order["environment"])
    try:
        workflow = yaml.load(order["source"], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        main.validate(workflow, load_package_config("workflow-schema.json"))
        parameters = workflow["main"].get("params", [])
        workflow = {name: Definition(body) for name, body in workflow.items()}
        return {
            "result": main.execute_workflow(workflow, dict.fromkeys(parameters, order["argument"])),
            "log": LOG,
        }
    except WorkflowError as error:
        return {"error": error.payload, "log": LOG}
    except Exception:
        return {"crash": traceback.format_exc(), "log": LOG}


def serve() -> None:
    patch()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sys.stdout.write(json.dumps(execute(json.loads(line))) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    serve()
