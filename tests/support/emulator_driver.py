"""Program in the PyPI emulator's own environment: executes workflows that it reads from stdin, one
JSON object a line, and answers each by one line on stdout.

Input: {"source", "argument", "environment", "url"}. Output: {"result"}, {"error"} with the
workflow's error, or {"crash"} with a traceback; and {"log"}. Each execution is a forked process,
because the emulator keeps state. Requests to https://*.googleapis.com go to the url, and sleeps to
the shared clock there.

Where the emulator (1.10.0) contradicts Google's documentation it is patched here, each time with
the reason. Its steps, jumps, scopes, retries and conditions stay its own, as a second opinion.
"""

# mypy: ignore-errors

import json
import logging
import os
import re
import sys
import threading
import traceback
from contextlib import suppress
from functools import cache
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
    """Sends all requests for Google to one address and raises Python's ConnectionError and
    TimeoutError, which the emulator expects.
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
    """A subworkflow. The emulator keeps them among the variables, whose copies take most
    of its time.
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


def with_named_variables(evaluate):
    """Return the emulator's function with the variables that its code names: it copies all that it
    gets, for each expression, which is most of its time.

    Args:
        evaluate: `run_code` or `assign_var`; its first argument is code, the last one the context.
    """

    def evaluate_few(code, *values, context):
        names = set(re.findall(r"\w+", code))
        few = {name: value for name, value in dict.items(context) if name in names}
        return evaluate(code, *values, few)

    return evaluate_few


def whole_value(value, context):
    """Evaluate an expression. The emulator writes a result as text and parses that as YAML: null
    becomes "None", and text may become a number.
    """
    if not isinstance(value, str) or "${" not in value:
        return value
    assert value.startswith("${"), value
    assert value.endswith("}"), value
    return render.run_code(value[2:-1], context=context)


def map_get(value, keys):
    """Return null for a missing key and for a value that is no map
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
    render.run_code = main.run_code = with_named_variables(render.run_code)
    assign_few = with_named_variables(render.assign_var)
    main.assign_var = lambda key, value, context: assign_few(key, value, context=context)
    # the emulator evaluates Python, which has other names for them
    render.STANDARD_LIBRARY.update({"true": True, "false": False, "null": None})
    # the emulator's function replaces false, 0 and "" too
    render.STANDARD_LIBRARY["default"] = helpers["default"] = lambda value, other: (
        other if value is None else value
    )
    map_utils.get = map_get
    # a failed assignment keeps the emulator's lock, and the next one in an `except` would wait
    # for ever
    main.LOCK = REENTRANT
    http_utils.AuthorizedSession = LocalSession
    http_utils.default = lambda scopes: (None, None)
    main.sleep = sys_utils.sleep = sleep
    sys_utils.now = lambda: ask_clock("GET", "now")
    sys_utils.log = log


@cache
def valid_workflow(source: str) -> dict:
    """Return the subworkflows of a source that agrees with Google's schema."""
    workflow = yaml.load(source, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    main.validate(workflow, load_package_config("workflow-schema.json"))
    return {name: Definition(body) for name, body in workflow.items()}


def execute(order: dict) -> dict:
    LocalSession.url = order["url"]
    os.environ.update(order["environment"])
    try:
        workflow = valid_workflow(order["source"])
        parameters = workflow["main"].get("params", [])
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
        order = json.loads(line)
        # before the fork, for the executions of the same source; its error is the execution's
        with suppress(Exception):
            valid_workflow(order["source"])
        child = os.fork()
        if child == 0:
            sys.stdout.write(json.dumps(execute(order)) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    serve()
