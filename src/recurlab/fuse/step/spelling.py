"""How operations are spelt in C++, and which names are taken there."""

BINARY = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==",
    "ne": "!=", "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
PREFIX = {"neg": "-", "not": "~"}
FUNCTIONS = {
    "abs", "sign", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sigmoid", "erf", "floor", "ceil",
    "trunc", "round", "minimum", "maximum", "where", "pow",
}  # fmt: skip
# Names that the arithmetic and the kernels use.
OWN = {
    "vec", "real", "mask", "splat", "load", "store", "x", "state", "recur", "next", "d_x", "d_recur", "d_state",
    "d_next", "d_operand", "W", "Step", "Phase", "INLINE", "LIBM", "PER_TYPE", "MASKED", "LANE_BY_LANE",
}  # fmt: skip
KEYWORDS = {
    "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case", "catch",
    "char", "char8_t", "char16_t", "char32_t", "class", "co_await", "co_return", "co_yield", "compl", "concept",
    "const", "const_cast", "consteval", "constexpr", "constinit", "continue", "decltype", "default", "delete", "do",
    "double", "dynamic_cast", "else", "enum", "explicit", "export", "extern", "false", "final", "float", "for",
    "friend", "goto", "if", "import", "inline", "int", "long", "module", "mutable", "namespace", "new", "noexcept",
    "not", "not_eq", "nullptr", "operator", "or", "or_eq", "override", "private", "protected", "public", "register",
    "reinterpret_cast", "requires", "return", "short", "signed", "sizeof", "static", "static_assert", "static_cast",
    "struct", "switch", "template", "this", "thread_local", "throw", "true", "try", "typedef", "typeid", "typename",
    "union", "unsigned", "using", "virtual", "void", "volatile", "wchar_t", "while", "xor", "xor_eq",
}  # fmt: skip
TAKEN = FUNCTIONS | OWN | KEYWORDS
