"""Floor 2. Numerical proof of a hand-written Function, a composition or a whole model.

    from tinymixer.gradcheck import check_function

    print(check_function(MyFunction(), x, W))

The report names the worst element and both numbers and, where backward is wrong, what the error
looks like. `if report:` and `report.raise_on_failure()` say it to a program. Everything is done
in float64: in float32 the best difference quotient is good to three or four digits, and a bug
hides below.
"""

from tinymixer.gradcheck.cases import CASES, Case
from tinymixer.gradcheck.checks import check, check_function, check_model
from tinymixer.gradcheck.findings import Finding
from tinymixer.gradcheck.report import Report

__all__ = ["CASES", "Case", "Finding", "Report", "check", "check_function", "check_model"]
