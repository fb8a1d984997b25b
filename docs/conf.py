"""Settings of the documentation: ``make docs`` builds it into build/docs."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

from htsr._version import __version__  # noqa: E402 - found by the line above

project = "htsr"
author = "the authors of htsr"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "repository_files",
    "api_pages",
    "pictures",
]
exclude_patterns = ["**.ipynb_checkpoints"]
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]

# Markdown. Anchors of headings are GitHub's, so that links work there, too.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # notebooks keep their outputs; the tests execute them

# The reference. Frameworks that only their own integration needs are not installed here.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!htsr).*"),  # other packages are not linked: a build needs no network
    (r"py:(class|obj|attr|data|exc)", r"htsr\..*"),  # types that stand in signatures and have no page of their own
]
autodoc_mock_imports = ["lightning", "pytorch_lightning", "transformers", "tensorboard", "wandb", "mlflow"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

html_theme = "furo"
html_title = f"htsr {release}"
html_static_path = ["_static"]
html_css_files = ["htsr.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
