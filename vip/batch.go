package vip

import "time"

const (
	// addBatch and deleteBatch are the sizes of the first batch. The first announcement
	// of a take leaves after one address.
	addBatch    = 1
	deleteBatch = 16
	// batchTime is how long a batch is to take: what a Set, or the end of the lease,
	// waits for at most.
	batchTime = time.Millisecond
	// largestBatch is what one request to the kernel carries.
	largestBatch = 256
)

// A batchSize is the number of addresses to change with one request. It grows while
// requests are quick, and shrinks where the kernel is slow: an IPv6 address costs it
// more the more the link has.
type batchSize struct{ n int }

func newBatchSize(first int) *batchSize { return &batchSize{n: first} }

// of returns the size of the next batch if left are left.
func (b *batchSize) of(left int) int { return min(b.n, left) }

// took notes how long a batch of n took. One that the scheduler interrupted makes
// the next smaller, which costs less than a system call.
func (b *batchSize) took(n int, d time.Duration) {
	most := min(4*n, largestBatch)
	b.n = most
	if d > 0 {
		b.n = int(min(int64(most), max(int64(n)*int64(batchTime)/int64(d), 1)))
	}
}
