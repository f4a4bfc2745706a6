"""The exceptions a user can meet.

```
LongplayError                 exit code 1
├── UserError                 exit code 2: something the user gave is wrong
│   ├── PromptError           text, sections or an audio prompt
│   ├── AudioError            a file that cannot be read or written
│   ├── ConfigError           a config key or value
│   └── CheckpointError       a model that is missing, damaged or does not match
├── DownloadError             a hub or package archive cannot be reached
└── TrainingError             a run that cannot go on (NaN, empty data, full disk)
```

Every message names the thing, the value and the remedy, on one line.
"""


class LongplayError(Exception):
    """Base of everything that this package raises on purpose."""

    exit_code = 1


class UserError(LongplayError):
    """Something that the user gave is wrong; the message says what and how to mend it."""

    exit_code = 2


class PromptError(UserError):
    """A prompt, a section list or a generation option is out of range."""


class AudioError(UserError):
    """An audio file cannot be read, is unusable, or cannot be written."""


class ConfigError(UserError):
    """A config file or override has an unknown key or a wrong value."""


class CheckpointError(UserError):
    """A model directory is missing, incomplete, damaged or does not fit."""


class DownloadError(LongplayError):
    """A model hub or a package archive cannot be reached, or a download is incomplete."""


class TrainingError(LongplayError):
    """A training run cannot go on; the last checkpoint is intact."""
