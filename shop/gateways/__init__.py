"""The payment gateways behind one small interface (`base`), one module each."""
