"""Back-propagation written out as tensor operations. Imports torch only."""
