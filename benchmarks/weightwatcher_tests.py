"""Run WeightWatcher's own test file against htsr.compat, and against WeightWatcher itself, and compare the outcomes.

Needs weightwatcher 0.7.7, transformers and torchvision, and the file tests/test.py of WeightWatcher's source distribution
(``pip download weightwatcher==0.7.6 --no-deps --no-binary :all:``, which holds the tests that 0.7.7 leaves out):

    python benchmarks/weightwatcher_tests.py weightwatcher-0.7.6/tests/test.py

Pretrained weights cannot be downloaded here, so stand-ins of the same architecture with random heavy-tailed weights replace
them. A test counts if WeightWatcher itself passes it with these stand-ins; the others need the true weights, TensorFlow, a GPU or
an older package. Every counted test that htsr.compat fails must match an entry of DELIBERATE.
"""

import argparse
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import types
import unittest
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from provenance import RESULTS, provenance

os.environ["HF_HUB_OFFLINE"] = "1"  # so that a test that needs a download fails at once
OUT = RESULTS / "weightwatcher_tests.md"

# Failures of htsr.compat on purpose: a pattern for "Class.test: what it said", and the reason.
DELIBERATE = (
    (r"htsr.compat has no extract_", "htsr reads a checkpoint where it is, and extracts none into files of arrays"),
    (r"has no attribute '(PyStateDictDir|SafeTensorDict)'", "calls a class inside WeightWatcher that reads files"),
    (
        r"FrameworkLayer|has no attribute '(PyTorch|PyStateDict)Layer'",
        "one class for layers of all sources, FrameworkLayer",
    ),
    (r"htsr.compat has no infer_", "htsr recognises a format by its content and has no list of frameworks"),
    (r"htsr.compat has no \w*vector", "refused: the entropy of vector_metrics depends on the length of the vector"),
    (r"found pytorch_model\.0\.bin", "pytorch_model.0.bin is a name that no library gives to a shard"),
    (
        r"Test_SafeTensorsDir\.test_get_last_layer: \+ layer4",
        "htsr sorts a file's layers by name; WeightWatcher reads a .layer_map",
    ),
)
# What WeightWatcher says for a test that does not count, and what it lacks.
NOT_COUNTED = (
    (r"TensorFlow is not installed|tensorflow", "needs TensorFlow"),
    (r"adapter_config", "needs a download"),
    (r"^skipped", "needs a GPU"),
    (r"^timeout", "takes longer than the limit"),
    (r"int64\(-1\)|-1 !=|unexpected keyword|not found in|Lambda", "WeightWatcher cannot fit it with powerlaw 2"),
    (r"", "asserts values of the true weights, or fails in WeightWatcher for other reasons"),
)
# Tests that look at the true width of VGG11.
WIDE = "svd_smoothing|permute_W"

# Tests that never touch the changed import: they call functions inside WeightWatcher.
INTERNAL = re.compile(
    r"Test_RMT_Util|Test_PyTorchSVD|Test_SVDLowrank|TestSmoothW|TestSmallNPowerLaw|\.test_runtime_warnings|\.test_WWFit_available"
)


def stand_ins(wide: bool) -> None:
    """Replace TensorFlow by an empty module and pretrained weights by random ones of the same architecture.

    Unless ``wide``, the dense layers of VGG11 and VGG13 have 512 units, not 4096, because most tests do not look at the width.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:  # torchvision's operators were built for another torch; its models do not need them
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    import transformers

    def empty(name: str, **names: object) -> types.ModuleType:
        module = types.ModuleType(name)
        module.__dict__.update(names)
        sys.modules[name] = module
        return module

    def missing(*_: object, **__: object) -> None:
        raise NotImplementedError("TensorFlow is not installed")

    backend = empty("tensorflow.keras.backend", clear_session=lambda: None)
    vgg16 = empty("tensorflow.keras.applications.vgg16", VGG16=missing)
    applications = empty("tensorflow.keras.applications", vgg16=vgg16)
    keras = empty("tensorflow.keras", backend=backend, applications=applications, __path__=[])
    empty("tensorflow", keras=keras, __path__=[])

    kept: dict[str, dict[str, torch.Tensor]] = {}

    def heavy(name: str, make: object) -> torch.nn.Module:
        """Return a model whose weights are products of random factors, which are heavy-tailed and cheap to draw."""
        with torch.device("meta"):
            model = make()  # type: ignore[operator]
            if name.startswith("vgg") and not wide:
                for place, (inputs, outputs) in {0: (25088, 512), 3: (512, 512), 6: (512, 1000)}.items():
                    model.classifier[place] = torch.nn.Linear(inputs, outputs)
        if name not in kept:
            generator = torch.Generator().manual_seed(len(name))
            kept[name] = {
                key: torch.randn(value.shape, generator=generator) * (0.02 if value.ndim > 1 else 0.1)
                for key, value in model.state_dict().items()
                if value.is_floating_point()
            }
            for value in kept[name].values():
                if value.ndim > 1:
                    rows = torch.rand(value.shape[0], generator=generator).pow(-0.3)
                    value.mul_(rows.reshape(-1, *[1] * (value.ndim - 1)))
        model.to_empty(device="cpu")
        for key, value in model.state_dict().items():
            value.copy_(kept[name][key]) if key in kept[name] else value.zero_()
        return model.eval()

    for name in ("vgg11", "vgg13", "resnet18"):
        make = getattr(torchvision.models, name)
        setattr(torchvision.models, name, lambda *_, name=name, make=make, **__: heavy(name, make))
    albert = transformers.AlbertConfig(hidden_size=256, intermediate_size=512, num_attention_heads=4, vocab_size=3000)
    bert = transformers.BertConfig(vocab_size=2000, hidden_size=192, intermediate_size=384)
    for cls, config in ((transformers.AlbertModel, albert), (transformers.BertForSequenceClassification, bert)):
        make = lambda cls=cls, config=config: cls(config)  # noqa: E731
        cls.from_pretrained = classmethod(lambda cls, *_, make=make, **__: heavy(cls.__name__, make))


def loaded(path: Path, program: str, folder: str) -> types.ModuleType:
    """Return the test file as a module, with the import changed if the program is htsr; its files go to ``folder``."""
    text = path.read_text().replace("'/tmp'", repr(folder)).replace('"/tmp"', repr(folder))
    text = text.replace("AutoModel, TFAutoModelForSequenceClassification, ", "AutoModel, ")
    if program == "htsr":
        text = text.replace("import weightwatcher as ww", "import htsr.compat as ww")
        text = text.replace("weightwatcher.weightwatcher.WWLayer", "htsr.compat.iterators.WWLayer")
    changed = Path(folder) / "changed_tests.py"
    changed.write_text(text)
    if program == "weightwatcher":
        import weightwatcher

        weightwatcher.WeightWatcher.extract_pytorch_bins.__defaults__ = (None, None, folder, None)
    spec = importlib.util.spec_from_file_location("changed_tests", changed)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["changed_tests"] = module
    spec.loader.exec_module(module)
    return module


def outcome(test: unittest.TestCase, limit: float, folder: str) -> str:
    """Return "passed", "skipped", "timeout", or the last line of the traceback, of a test run in a process of its own."""
    file = Path(folder) / "outcome"
    file.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        result = unittest.TestResult()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            os.chdir(folder)
            unittest.TestSuite([test]).run(result)  # which runs setUpClass, too
        bad = result.errors + result.failures
        said = "skipped" if result.skipped and not bad else "passed"
        if bad:
            lines = bad[0][1].strip().splitlines()
            at = [line.strip() for line in lines if line.strip().startswith("File ")][-1]
            said = f"{lines[-1][:300]}   [{re.sub(r'.*/', '', at)[:80]}]"
        file.write_text(said)
        os._exit(0)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return file.read_text() if file.exists() else "died"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def run(path: Path, program: str, only: str, limit: float, wide: bool) -> dict[str, str]:
    """Return the outcome of each test, by "Class.test"."""
    stand_ins(wide)
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            module = loaded(path, program, folder)
        tests: dict[str, str] = {}
        for suite in unittest.defaultTestLoader.loadTestsFromModule(module):
            for test in suite:  # type: ignore[union-attr]
                name = test.id().split(".", 1)[1]
                if not re.search(only, name):
                    continue
                start = time.monotonic()
                tests[name] = outcome(test, limit, folder)
                print(f"{name}: {tests[name]} ({time.monotonic() - start:.1f} s)", file=sys.stderr, flush=True)
        return tests


def both(path: Path, limit: float) -> dict[str, dict[str, str]]:
    """Return the outcomes of both programs; the tests of ``WIDE`` run with the true width of VGG11."""
    outcomes = {}
    for program in ("weightwatcher", "htsr"):
        outcomes[program] = {}
        for only, wide in (("", []), (WIDE, ["--wide"])):
            command = [sys.executable, __file__, str(path), "--program", program, "--only", only, "--limit", str(limit)]
            said = subprocess.run([*command, *wide], stdout=subprocess.PIPE, check=True, text=True).stdout
            outcomes[program] |= json.loads(said)
    return outcomes


def matched(patterns: Sequence[tuple[str, str]], text: str) -> str | None:
    """Return what stands beside the first pattern that occurs in a text."""
    return next((meaning for pattern, meaning in patterns if re.search(pattern, text)), None)


def _short(said: str) -> str:
    """Return an outcome without its line number and temporary paths, at most 120 characters of it."""
    return re.sub(r"/tmp/\S+: ", "", said.split("   [")[0])[:120].replace("|", "/")


def report(theirs: dict[str, str], ours: dict[str, str]) -> str:
    """Return the result as Markdown."""
    counted = [name for name, said in theirs.items() if said == "passed" and not INTERNAL.search(name)]
    failed = [name for name in counted if ours[name] != "passed"]
    reasons = {name: matched(DELIBERATE, f"{name}: {ours[name]}") for name in failed}
    unexplained = sum(reason is None for reason in reasons.values())
    left_out = Counter(
        "never touches the import: it tests a function inside WeightWatcher"
        if INTERNAL.search(name)
        else matched(NOT_COUNTED, said)
        for name, said in theirs.items()
        if name not in counted
    )
    lines = [
        "# WeightWatcher's own tests, with the import changed",
        "",
        f"Of the {len(theirs)} tests in the file, {len(counted)} count: WeightWatcher 0.7.7 itself passes them here, with "
        f"stand-ins of random heavy-tailed weights for pretrained ones. htsr.compat passes {len(counted) - len(failed)} and "
        f"fails {len(failed)}: {len(failed) - unexplained} are deliberate differences, {unexplained} are not.",
        "",
        "| why htsr.compat fails a counted test | tests |",
        "|---|---|",
        *(f"| {why or 'not explained'} | {number} |" for why, number in Counter(reasons.values()).most_common()),
        "",
        "| why a test does not count | tests |",
        "|---|---|",
        *(f"| {why} | {number} |" for why, number in left_out.most_common()),
        "",
        "Every counted test that htsr.compat fails:",
        "",
        "| test | said |",
        "|---|---|",
        *(f"| {name} | {_short(ours[name])} |" for name in failed),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--only", default="", help="regular expression for Class.test")
    parser.add_argument("--program", choices=("weightwatcher", "htsr"), help="run one program and print JSON")
    parser.add_argument("--wide", action="store_true", help="give VGG11 its true width; slow")
    parser.add_argument("--limit", type=float, default=200, help="seconds for each test")
    parser.add_argument("--outcomes", type=Path, nargs=2, help="the JSON of both programs, in place of running them")
    args = parser.parse_args()
    if args.program:
        print(json.dumps(run(args.path, args.program, args.only, args.limit, args.wide), indent=1))
        return
    if args.outcomes:
        theirs, ours = (json.loads(file.read_text()) for file in args.outcomes)
    else:
        theirs, ours = both(args.path, args.limit).values()
    OUT.write_text(f"{report(theirs, ours)}\n{provenance()}\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
