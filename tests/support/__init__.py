"""What the tests share: fixtures, writers of odd files, oracles."""
