"""The one exception that means: the user can mend this."""


class BacklightError(Exception):
    """Bad input, said in one sentence that names the key or file, what was given and what is allowed.

    Entry points print the sentence and exit with code 2; they never show a traceback for it
    unless ``HYDRA_FULL_ERROR=1`` is set.
    """
