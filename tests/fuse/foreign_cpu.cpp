// One call of a kernel on another kind of CPU. From stdin: which call, the bytes of its `Problem`, the memory that it points
// into, and where in it the pointers are; the memory goes to stdout as the call has left it. Both sides lay structs out alike.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct Problem;
struct Product;
extern "C" void forward(const Problem *);
extern "C" void backward(const Problem *);
extern "C" void product(const Product *);

static void take(void *to, size_t count) {
    if (count && std::fread(to, count, 1, stdin) != 1) std::exit(3);
}

int main() {
    long head[5];  // 1 for the backward, bytes of the problem, the place of `product`, blocks of memory, pointers
    take(head, sizeof head);
    char *const problem = (char *)std::aligned_alloc(64, (head[1] + 63) / 64 * 64);
    take(problem, head[1]);
    std::vector<long> sizes(head[3]), pointers(3 * head[4]);
    take(sizes.data(), sizes.size() * sizeof(long));
    take(pointers.data(), pointers.size() * sizeof(long));
    std::vector<char *> blocks;
    for (const long size : sizes) {
        blocks.push_back((char *)std::aligned_alloc(64, (size + 63) / 64 * 64));
        take(blocks.back(), size);
    }
    for (long i = 0; i < head[4]; i++) {  // its place in the problem, a block, a place in the block
        char *const address = blocks[pointers[3 * i + 1]] + pointers[3 * i + 2];
        std::memcpy(problem + pointers[3 * i], &address, sizeof address);
    }
    void (*const multiply)(const Product *) = product;
    std::memcpy(problem + head[2], &multiply, sizeof multiply);
    (head[0] ? backward : forward)((const Problem *)problem);
    for (size_t i = 0; i < blocks.size(); i++)
        if (sizes[i] && std::fwrite(blocks[i], sizes[i], 1, stdout) != 1) return 4;
    return 0;
}
