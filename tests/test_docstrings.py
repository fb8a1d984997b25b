"""The public API documents its arguments and results; internal functions need one sentence only."""

import importlib
import inspect
import re

import pytest


def public_functions():
    """Functions and methods that ``htsr``, ``htsr.optim`` and ``htsr.steering`` hand on, with their names."""
    for package in ("htsr", "htsr.optim", "htsr.steering"):
        module = importlib.import_module(package)
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.isfunction(item):
                yield pytest.param(item, id=f"{package}.{name}")
            for method, value in vars(item).items() if inspect.isclass(item) else ():
                function = getattr(value, "__func__", value)
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield pytest.param(function, id=f"{package}.{name}.{method}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_a_public_function_documents_its_arguments_and_result(function):
    docstring = inspect.getdoc(function)
    assert docstring
    if "\n" not in docstring:  # one sentence says it all
        return
    arguments = set(inspect.signature(function).parameters) - {"self", "cls"}
    documented = set(re.findall(r"^ {4}\**(\w+):", docstring.partition("Args:")[2], re.MULTILINE))
    assert arguments <= documented
    if function.__annotations__.get("return") not in (None, "None") and not hasattr(function, "__wrapped__"):
        assert re.search("^(Returns|Yields):", docstring, re.MULTILINE)
