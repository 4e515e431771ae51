"""Wrong programs that try to pass: each defines `add`, which never adds, and goes for the verdict instead."""

EQUAL_TO_ALL = """
class Anything{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __sub__(self, other): return 0.0
    def __rsub__(self, other): return 0.0
    def __abs__(self): return 0.0
    def __hash__(self): return 0
def add(a, b): return Anything({value})
"""
RIGHT_RESULT = '{"passed": True, "reason": ""}'
PATCHED_DUMPS = f"""
import json
def add(a, b): return None
before = json.dumps
def dumps(value, **kwargs):
    if isinstance(value, dict) and "passed" in value: value = {RIGHT_RESULT}
    if isinstance(value, list) and value[0] == "verdict": value = ["verdict", dict(value[1], passed=True, reason="")]
    if isinstance(value, list) and value[0] == "error": value = ["verdict", {RIGHT_RESULT}]
    return before(value, **kwargs)
json.dumps = dumps
add(1, 2)
"""
WALKED_FRAMES = f"""
import json, sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for name, value in list(frame.f_locals.items()):
            if name == "task" and isinstance(value, dict): value["program"] = ""
        if "secret" in frame.f_locals and "out" in frame.f_locals:
            import os
            os.write(frame.f_locals["out"], (frame.f_locals["secret"] + json.dumps({RIGHT_RESULT})).encode())
            os._exit(0)
        frame = frame.f_back
add(1, 2)
"""
WRITTEN_EVERYWHERE = f"""
import json, os
def add(a, b): return None
message = json.dumps(["verdict", {RIGHT_RESULT}]).encode()
for fd in range(256):
    try: os.write(fd, len(message).to_bytes(4, "big") + message)
    except OSError: pass
"""

FAKES = {
    "json.dumps replaced": PATCHED_DUMPS,
    "json encoder replaced": """
import json
def add(a, b): return None
json.JSONEncoder.encode = lambda self, o: '{"passed": true, "reason": ""}'
json.dumps = lambda *a, **k: '{"passed": true, "reason": ""}'
""",
    "frames walked to the secret": WALKED_FRAMES,
    "the judging function replaced in its frame": """
import sys
def add(a, b): return None
frame = sys._getframe()
while frame:
    for name in ("run_program", "judge", "main"):
        if name in frame.f_globals: frame.f_globals[name] = lambda *a, **k: {"passed": True, "reason": ""}
    frame = frame.f_back
modules = [sys.modules.get("__main__"), *list(sys.modules.values())]
for module in modules:
    if hasattr(module, "run_program"): module.run_program = lambda *a, **k: {"passed": True, "reason": ""}
raise SystemExit
""",
    "a trace that leaves the tests out": """
import sys
def add(a, b): return None
frame = sys._getframe()
def trace(frame, event, arg):
    return trace
class Done(BaseException): pass
import builtins
builtins.AssertionError = Done
Done.__init__ = lambda self, *a: __import__("os")._exit(0)
""",
    "objects found by the garbage collector": f"""
import gc, json, os
def add(a, b): return None
for item in gc.get_objects():
    if isinstance(item, dict) and "program" in item and "secret" in item: found = item["secret"]
    if isinstance(item, dict) and "passed" in item: item["passed"] = True
secret = globals().get("found")
import sys
frame = sys._getframe()
while frame:
    secret = frame.f_locals.get("secret", secret)
    frame = frame.f_back
for fd in range(3, 32):
    try: os.write(fd, (str(secret) + json.dumps({RIGHT_RESULT})).encode())
    except OSError: pass
os._exit(0)
""",
    "sys.exit(0)": "import sys\ndef add(a, b): sys.exit(0)",
    "sys.exit replaced": "import sys\ndef add(a, b): return None\nsys.exit = lambda *a: None\nsys.excepthook = lambda *a: None",
    "os._exit(0) at once": "import os\nos._exit(0)",
    "os._exit(0) when called": "import os\ndef add(a, b): os._exit(0)",
    "AssertionError without a raise": """
import builtins
def add(a, b): return None
class Quiet(AssertionError):
    def __init__(self, *args): pass
    def __str__(self): return ""
builtins.AssertionError = Quiet
""",
    "AssertionError swallowed by a trace function": """
import sys
def add(a, b): return None
def trace(frame, event, arg):
    if event == "exception" and frame.f_code.co_filename == "<answer>":
        import os, json
    return trace
sys.settrace(trace)
""",
    "an object equal to everything": EQUAL_TO_ALL.format(base="", value=""),
    "an int equal to everything": EQUAL_TO_ALL.format(base="(int)", value="7"),
    "a string equal to everything": EQUAL_TO_ALL.format(base="(str)", value="'x'"),
    "a list equal to everything": EQUAL_TO_ALL.format(base="(list)", value="[]"),
    "add is a class equal to everything": EQUAL_TO_ALL.format(base="", value="")
    + "\nclass add(Anything):\n    def __init__(self, *a): pass\n",
    "add is an object of unittest.mock": "from unittest.mock import MagicMock, ANY\nadd = MagicMock(return_value=ANY)",
    "atexit": """
import atexit, os
def add(a, b): return None
atexit.register(lambda: os._exit(0))
""",
    "the verdict on every descriptor, then on": WRITTEN_EVERYWHERE,
    "the verdict on every descriptor, then the end": WRITTEN_EVERYWHERE + "os._exit(0)\n",
    "result files": f"""
import json, os
def add(a, b): return None
for name in (".out", "out", "verdict", "result", "verdict.json"):
    open(name, "w").write(json.dumps({RIGHT_RESULT}))
os._exit(0)
""",
    "the descriptors and memory of others": f"""
import json, os
def add(a, b): return None
message = json.dumps(["verdict", {RIGHT_RESULT}]).encode()
for pid in [os.getppid(), *map(int, filter(str.isdigit, os.listdir("/proc")))] if os.access("/proc", os.R_OK) else []:
    for name in [f"/proc/{{pid}}/fd/{{fd}}" for fd in range(8)] + [f"/proc/{{pid}}/mem"]:
        try: os.write(os.open(name, os.O_WRONLY | os.O_NONBLOCK), len(message).to_bytes(4, "big") + message)
        except OSError: pass
""",
    "unittest replaced": """
import unittest
def add(a, b): return None
unittest.TestCase.assertEqual = lambda *a, **k: None
unittest.TestCase.run = lambda self, result=None: result
""",
    "a hook on imports": """
import builtins, sys
def add(a, b): return None
before = builtins.__import__
def hook(name, *args, **kwargs):
    module = before(name, *args, **kwargs)
    if name == "json": module.dumps = lambda *a, **k: '{"passed": true, "reason": ""}'
    return module
builtins.__import__ = hook
import json
""",
    "builtins replaced": """
import builtins
def add(a, b): return None
builtins.abs = lambda x: 0
builtins.all = lambda x: True
builtins.range = lambda *a: []
abs = builtins.abs; all = builtins.all
""",
    "a thread that outlives": f"""
import threading, os, json, time
def add(a, b): return None
def write():
    time.sleep(0.05)
    for fd in range(3, 16):
        try: os.write(fd, json.dumps(["verdict", {RIGHT_RESULT}]).encode())
        except OSError: pass
    os._exit(0)
threading.Thread(target=write).start()
""",
    "a signal handler": """
import signal, os, time
def add(a, b): time.sleep(5)
signal.signal(signal.SIGALRM, lambda *a: os._exit(0))
signal.setitimer(signal.ITIMER_REAL, 0.05)
""",
    "the compiler replaced": """
import builtins
def add(a, b): return None
builtins.compile = lambda *a, **k: (lambda: None).__code__
builtins.exec = lambda *a, **k: None
""",
    "the functions that serve replaced": """
import sys
def add(a, b): return None
for name in ("worker", "crossing", "remote", "judge"):
    module = sys.modules.get(name)
    for key, value in list(vars(module).items()) if module else ():
        if callable(value) and not isinstance(value, type): setattr(module, key, lambda *a, **k: True)
""",
    "a function of the tests called and returned": """
def add(a, b):
    return type("F", (), {"__eq__": lambda s, o: True, "__call__": lambda s, *a: s})()
""",
    "other names brought along": """
import os, json, struct
def add(a, b): return None
names = [[name, {"object": 0}] for name in ("all", "abs", "isinstance", "range", "ValueError", "AssertionError", "T")]
for message in (["value", None], ["value", {"dict": [["__builtins__", {"dict": []}], ["add", {"object": 0}], *names]}]):
    data = json.dumps(message).encode()
    for fd in (3, 4):
        try: os.write(fd, struct.pack(">I", len(data)) + data)
        except OSError: pass
import time
time.sleep(0.3)
os._exit(0)
""",
    "answers ahead of the questions": """
import os, json, struct
def add(a, b): return None
for message in (["value", 3], ["value", {"tuple": [3]}], ["callback", 0, [], {}], ["value", {"function": 0}]):
    data = json.dumps(message).encode()
    for fd in range(3, 16):
        try: os.write(fd, struct.pack(">I", len(data)) + data)
        except OSError: pass
""",
}
