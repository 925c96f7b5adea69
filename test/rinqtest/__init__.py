"""What the tests of rinq share: throwaway servers, an independent peer, a recording proxy."""
