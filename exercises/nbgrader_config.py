"""nbgrader reads this file; the folder it lies in is the course: source/ has the assignments.

Run nbgrader's commands here, or in a copy of this folder. docs/instructors.md has them in order.
"""

import os
import time

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    Execute,
    IgnorePattern,
    LimitOutput,
    NbGraderPreprocessor,
    SaveAutoGrades,
)

from minitransformer.exercises.grading.limits import Limits

c = get_config()  # noqa: F821 (nbgrader provides it)
c.CourseDirectory.course_id = "adapters"
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("write this part")'}

# zip_collect: ada/03_bottleneck_adapter.ipynb or ada_03_bottleneck_adapter.ipynb, each of "ada".
c.FileNameCollectorPlugin.named_regexp = (
    r".*[/\\](?P<student_id>[^/\\]+?)[_/\\](?P<file_id>\d\d_[a-z_]+)[^/\\]*$"
)

SECONDS = 60  # for a notebook
KEPT = 20_000  # characters of what a cell prints


class Prepare(NbGraderPreprocessor):
    """Before a submission runs: whose it is, for its own numbers, and what it may use.

    The limits hold for this process and what it starts, until `nbgrader autograde` ends.
    """

    def preprocess(self, notebook, resources):
        os.environ["MINITRANSFORMER_STUDENT"] = resources["nbgrader"]["student"]
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        Limits(seconds=24 * 3600).apply_to_this_process()
        return notebook, resources


class ExecuteWithinLimits(Execute):
    """A notebook has `timeout` seconds; when they are used up, each further cell has 6."""

    def preprocess(self, notebook, resources, km=None):
        limits, began = Limits(seconds=self.timeout), time.monotonic()
        self.timeout_func = lambda cell: limits.left(time.monotonic() - began)
        return super().preprocess(notebook, resources, km)


c.Execute.timeout = SECONDS
c.Execute.iopub_timeout = SECONDS  # so long may output take that a cell has left behind
c.Execute.extra_arguments = [
    "--IPKernelApp.exec_lines=from minitransformer.exercises.grading.kernel import limit_output; "
    f"limit_output({KEPT})"
]
c.LimitOutput.max_lines = 200
c.Autograde.autograde_preprocessors = [
    Prepare,
    ExecuteWithinLimits,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]
