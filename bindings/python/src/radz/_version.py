"""The version of the binding: that of the radz.h it mirrors.

SPDX-License-Identifier: Apache-2.0
"""

__version__ = "0.1.0"
