"""A finished model, its card and its report, uploaded to a hub.

upload_files   which files go, and whether they may: whole, as they were written, and without a secret
repository     the repository there: what it holds, and its errors as sentences
push           one commit, or nothing
"""

from fusion.extras.hub.push import Pushed, PushSettings, megabytes, push_folder

__all__ = ["PushSettings", "Pushed", "megabytes", "push_folder"]
