"""Why a network does not learn: from what a run measured to symptoms, and from symptoms to remedies."""
